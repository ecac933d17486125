"""Routes of Collections: pages of the Hub that tie repositories together."""

import re
import uuid
from datetime import UTC, datetime

from .http_messages import Request, Response, route
from .repos import stamp
from .store import HubError, check_rights

SLUG = r"/api/collections/(?P<slug>[^/]+/[^/]+)"


@route("POST", "/api/collections")
def create(request: Request) -> Response:
    wish = request.json()
    check_rights(request.account, wish["namespace"])
    for slug, collection in request.store.collections.items():
        if (collection["owner"]["name"], collection["title"]) == (wish["namespace"], wish["title"]):
            raise HubError(409, "You already created this collection", slug=slug)
    words = re.sub(r"[^a-z0-9]+", "-", wish["title"].lower()).strip("-")
    slug = f"{wish['namespace']}/{words}-{uuid.uuid4().hex[:24]}"
    request.store.collections[slug] = {
        "slug": slug,
        "title": wish["title"],
        "description": wish.get("description", ""),
        "owner": {"name": wish["namespace"]},
        "private": wish["private"],
        "items": [],
        "position": len(request.store.collections),
        "theme": "blue",
        "upvotes": 0,
        "lastUpdated": stamp(datetime.now(UTC)),
    }
    return Response(request.store.collections[slug])


@route("GET", SLUG)
def read(request: Request, slug: str) -> Response:
    return Response(_readable(request, slug))


@route("PATCH", SLUG)
def update(request: Request, slug: str) -> Response:
    collection = _writable(request, slug)
    collection |= request.json() | {"lastUpdated": stamp(datetime.now(UTC))}
    return Response({"success": True, "data": collection})


@route("DELETE", SLUG)
def delete(request: Request, slug: str) -> Response:
    _writable(request, slug)
    del request.store.collections[slug]
    return Response()


@route("POST", f"{SLUG}/items")
def add_item(request: Request, slug: str) -> Response:
    collection = _writable(request, slug)
    wish = request.json()
    kind, item_id = wish["item"]["type"], wish["item"]["id"]
    if kind in ("model", "dataset", "space"):
        request.store.readable(kind, item_id, request.account)
    if any((item["type"], item["id"]) == (kind, item_id) for item in collection["items"]):
        raise HubError(409, f"{item_id} is in this collection already")
    item = {"_id": uuid.uuid4().hex[:24], "id": item_id, "type": kind, "position": len(collection["items"])}
    if "note" in wish:
        item["note"] = {"text": wish["note"]}
    collection["items"].append(item)
    return Response(collection)


@route("PATCH", rf"{SLUG}/items/(?P<object_id>[^/]+)")
def update_item(request: Request, slug: str, object_id: str) -> Response:
    items = _writable(request, slug)["items"]
    item, wish = _item(items, object_id), request.json()
    if "note" in wish:
        item["note"] = {"text": wish["note"]}
    if "position" in wish:
        items.remove(item)
        items.insert(wish["position"], item)
        for position, other in enumerate(items):
            other["position"] = position
    return Response({"success": True})


@route("DELETE", rf"{SLUG}/items/(?P<object_id>[^/]+)")
def delete_item(request: Request, slug: str, object_id: str) -> Response:
    items = _writable(request, slug)["items"]
    items.remove(_item(items, object_id))
    return Response({"success": True})


def _readable(request: Request, slug: str) -> dict:
    collection = request.store.collections.get(slug)
    account = request.account
    if collection is None or (collection["private"] and not (account and account.is_member(slug.split("/")[0]))):
        raise HubError(404, "Collection not found")
    return collection


def _writable(request: Request, slug: str) -> dict:
    collection = _readable(request, slug)
    check_rights(request.account, slug.split("/")[0])
    return collection


def _item(items: list[dict], object_id: str) -> dict:
    found = next((item for item in items if item["_id"] == object_id), None)
    if found is None:
        raise HubError(404, "Item not found in this collection")
    return found
