"""What OpenAPI says of the routes beyond their signatures."""

from typing import Any

from components.core.records import TRACE_COLUMNS

DESCRIPTION = (
    "Raw anomaly scores, conformal p-values and decisions from an ONNX bundle. Every answer is in the score log."
)
SOURCE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
RESULT = (
    "record_id", "image_id", "score", "p_value", "decision", "threshold", "model_version", "width", "height", "regions",
    *TRACE_COLUMNS,
)  # fmt: skip

_EXAMPLE = {
    "model": {"name": "elpv-mono", "version": "2"},
    "results": [
        {
            "record_id": "0b6c7c4f2b8e4c1f9a0d3e5f6a7b8c9d",
            "image_id": "cell.png",
            "score": 24.1,
            "p_value": 0.103,
            "decision": "normal",
            "threshold": 26.1,
            "model_version": "25f41524d13e",
            "width": 300,
            "height": 300,
            "regions": [],
            "part": "P-4711",
            **dict.fromkeys(TRACE_COLUMNS[1:]),
        }
    ],
}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_REGION: dict[str, Any] = {
    "type": "object",
    "required": ["box", "area", "centroid", "peak"],
    "properties": {
        "box": {**_NUMBERS, "description": "x, y, width, height in pixels of the picture"},
        "area": {"type": "integer"},
        "centroid": {**_NUMBERS, "description": "x, y"},
        "peak": {"type": "number"},
    },
}
_RESULT: dict[str, Any] = {
    "type": "object",
    "required": list(RESULT),
    "properties": {
        **{name: {"type": "string"} for name in ("record_id", "image_id", "model_version")},
        **{name: {"type": "number"} for name in ("score", "threshold")},
        "p_value": {"type": "number", "minimum": 0, "maximum": 1},
        "decision": {"type": "string", "enum": ["normal", "anomalous"]},
        "width": {"type": "integer"},
        "height": {"type": "integer"},
        "regions": {"type": ["array", "null"], "items": _REGION, "description": "the highest peak first"},
        **{name: {"type": ["string", "null"]} for name in TRACE_COLUMNS},
        "overlay_png": {"type": "string", "description": "base64 of a PNG, with heatmap=overlay"},
        "map_npy": {"type": "string", "description": "base64 of a float32 .npy (H, W), with heatmap=map"},
    },
}
_SCORES = {
    "type": "object",
    "required": ["model", "results"],
    "properties": {"model": {"type": "object"}, "results": {"type": "array", "items": _RESULT}},
}
_MESSAGE = {"type": "object", "required": ["detail"], "properties": {"detail": {}}}
_FILE = {"type": "string", "format": "binary"}


def error(description: str) -> dict[str, Any]:
    """A response that carries one message."""
    content = {"application/json": {"schema": _MESSAGE, "example": {"detail": description}}}
    return {"description": description, "content": content}


Responses = dict[int | str, dict[str, Any]]
REFUSALS: Responses = {
    400: error("The multipart form is broken."),
    401: error("The bearer token is missing or wrong."),
    403: error("Changes are off, or the role of the token is too low."),
    404: error("There is no such record."),
    409: error("What is served has changed since the page was loaded, or an id was used for another picture."),
    408: error("The upload took too long."),
    413: error("The request is too large."),
    415: error("The content type is none of the accepted ones."),
    431: error("The headers are too long."),
    422: error("A file is no complete image, is too large, or a parameter is wrong."),
    500: error("The service failed on this request; its log says why."),
    503: error("The queue is full or the store is out of reach; try again after Retry-After."),
}
BYTES: Responses = {200: {"description": "The file.", "content": {"application/octet-stream": {"schema": _FILE}}}}
PICTURE: Responses = {200: {"description": "The picture.", "content": {"image/png": {"schema": _FILE}}}}
MOVING: Responses = {200: {"description": "The clip.", "content": {"image/webp": {"schema": _FILE}}}}
TABLE: Responses = {200: {"description": "The table.", "content": {"text/csv": {"schema": {"type": "string"}}}}}
SCORE_RESPONSES: Responses = {
    200: {
        "description": "Scores in the order of the images.",
        "content": {"application/json": {"schema": _SCORES, "example": _EXAMPLE}},
    },
    **{status: REFUSALS[status] for status in (400, 401, 403, 408, 409, 413, 415, 422, 500, 503)},
}
MODEL_RESPONSES: Responses = {401: REFUSALS[401]}
SCORE_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": _FILE, "minItems": 1},
                        **{name: {"type": "string"} for name in TRACE_COLUMNS},
                    },
                }
            },
            "image/png": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
        },
    }
}
SCORE: dict[str, Any] = {"responses": SCORE_RESPONSES, "openapi_extra": SCORE_REQUEST}
