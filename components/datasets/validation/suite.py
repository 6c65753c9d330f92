"""Great Expectations, and nothing else of Loupe, is spoken to here: suite, checkpoint, data docs."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from components.datasets.settings import ValidationSettings


def run_suite(
    table: pd.DataFrame, settings: ValidationSettings, name: str, docs: Path, frames: bool = False
) -> list[dict[str, Any]]:
    """Check the clean table against the suite and build the data docs; one record per expectation.

    *frames* of clips may repeat each other.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # temporary folders
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("images").add_dataframe_asset("manifest")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=_expectations(settings, frames)))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=asset.add_batch_definition_whole_dataframe("all"), suite=suite)
    )
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site: Any = {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
    context.add_data_docs_site(site_name="local", site_config=site)
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=name,
            validation_definitions=[definition],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["local"])],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["image_id"]},
        )
    )
    result = checkpoint.run(batch_parameters={"dataframe": table})
    return [_record(r) for validation in result.run_results.values() for r in validation.results]


def _expectations(settings: ValidationSettings, frames: bool) -> list[Any]:
    from great_expectations import expectations as gxe

    low, high = settings.brightness
    sides: dict[str, Any] = {"min_value": settings.min_side, "max_value": settings.max_side}
    return [
        gxe.ExpectColumnValuesToBeUnique(column="image_id"),
        *([] if frames else [gxe.ExpectColumnValuesToBeUnique(column="sha256")]),
        gxe.ExpectColumnValuesToBeNull(column="problem"),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=["normal", "anomalous", "uncertain"]),
        gxe.ExpectColumnValuesToBeInSet(column="mode", value_set=list(settings.modes)),
        gxe.ExpectColumnValuesToBeBetween(column="width", **sides),
        gxe.ExpectColumnValuesToBeBetween(column="height", **sides),
        gxe.ExpectColumnValuesToBeBetween(column="brightness", min_value=low, max_value=high),
        gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=["normal"], row_condition='role=="train"', condition_parser="pandas"
        ),
        gxe.ExpectTableRowCountToBeBetween(min_value=settings.min_train_normals),
    ]


def _record(result: Any) -> dict[str, Any]:
    config = result.expectation_config
    unexpected = result.result.get("unexpected_index_list") or []
    return {
        "expectation": config.type,
        "column": config.kwargs.get("column", "table"),
        "success": bool(result.success),
        "unexpected": [item["image_id"] for item in unexpected][:20],
    }
