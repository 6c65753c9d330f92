"""`mlflow server` whose pages open on runs and models: `python infra/mlflow_pages.py OPTIONS`.

MLflow's pages keep choices in the browser: which kind of work is shown (prompts and traces, unless another one is
chosen), whether its notes were closed, whether the browser sends telemetry, whether an assistant opens that needs a
network. This server answers for a browser that has not chosen: training is shown, notes are closed, nothing is sent,
nothing opens by itself. What a person chooses stays.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHOSEN = {  # of MLflow 3.17: key, with the version of its form, and value
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
    "mlflow.settings.telemetry.enabled_v1": "false",
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
LINES = "".join(
    f"if(!localStorage.getItem({key!r}))localStorage.setItem({key!r},{value!r});" for key, value in CHOSEN.items()
)
SCRIPT = f"<script>try{{{LINES}}}catch(e){{}}</script>".encode()


def application():  # type: ignore[no-untyped-def]  # of MLflow, which is only imported by the server
    """MLflow's application, whose first page makes the choices before anything reads them."""
    from flask import Response, request
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app

    @pages.after_request
    def first(answer: Response) -> Response:
        if request.path == "/" and answer.mimetype == "text/html" and answer.status_code == 200:
            answer.direct_passthrough = False
            answer.set_data(answer.get_data().replace(b"<head>", b"<head>" + SCRIPT, 1))
            answer.headers.pop("ETag", None)  # of the file without it
        return answer

    return app


def main() -> None:
    import mlflow.server
    from mlflow.cli import cli

    build = mlflow.server._build_uvicorn_command  # its option --app-name takes only what an installed package offers

    def ours(options, host, port, workers, _app, *more):  # type: ignore[no-untyped-def]
        command = build(options, host, port, workers, f"{Path(__file__).stem}:application", *more)
        return [*command[:-1], "--app-dir", str(HERE), "--factory", command[-1]]

    mlflow.server._build_uvicorn_command = ours
    sys.exit(cli(["server", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
