"""Metadata of cards: reading it, and the checks that the Hub makes before it takes a README.md."""

import re

import yaml

from .http_messages import Request, Response, route

COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SPACE_SDKS = ("docker", "gradio", "static", "streamlit")


def card_metadata(content: bytes) -> dict:
    """
    Reads the YAML block at the beginning of a README.md.

    Args:
        content (`bytes`):
            The file.

    Returns:
        `dict`: the metadata; empty where there is no block.

    Raises:
        `ValueError`: the block is not YAML, or not a mapping.
    """
    block = re.match(rb"\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", content, re.DOTALL)
    if block is None:
        return {}
    try:
        metadata = yaml.safe_load(block.group(1))
    except yaml.YAMLError as error:
        raise ValueError(f"The metadata block is not YAML: {error}") from error
    if not isinstance(metadata, dict | None):
        raise ValueError("The metadata block is not a mapping")
    return metadata or {}


@route("POST", "/api/validate-yaml")
def validate(request: Request) -> Response:
    card = request.json()
    try:
        metadata = card_metadata(card["content"].encode())
    except ValueError as error:
        problems = [str(error)]
    else:
        problems = list(find_problems(metadata, card["repoType"]))
        if not metadata:
            return Response({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    errors = [{"message": problem} for problem in problems]
    return Response({"errors": errors, "warnings": []}, 400 if errors else 200)


def find_problems(metadata: dict, kind: str):
    """Yields what the Hub would refuse in the metadata of a card."""
    for name in ("license", "base_model", "pipeline_tag", "library_name"):
        if not isinstance(metadata.get(name, ""), str | list):
            yield f'"{name}" must be a string'
    for name in ("tags", "datasets", "metrics", "models", "configs"):
        if not isinstance(metadata.get(name, []), list | str):
            yield f'"{name}" must be an array'
    for model in metadata.get("model-index", []):
        for result in model.get("results", []):
            yield from _result_problems(result)
    if kind == "space":
        if metadata.get("sdk") not in SPACE_SDKS:
            yield f'"sdk" must be one of {", ".join(SPACE_SDKS)}'
        for name in ("colorFrom", "colorTo"):
            if metadata.get(name, COLORS[0]) not in COLORS:
                yield f'"{name}" must be one of {", ".join(COLORS)}'
        if len(metadata.get("short_description", "")) > 60:
            yield '"short_description" must be at most 60 characters long'


def _result_problems(result: dict):
    for part, names in (("task", ["type"]), ("dataset", ["type", "name"])):
        for name in names:
            if not result.get(part, {}).get(name):
                yield f'"model-index.results.{part}.{name}" is required'
    for metric in result.get("metrics", []):
        if "type" not in metric or "value" not in metric:
            yield '"model-index.results.metrics" need "type" and "value"'
