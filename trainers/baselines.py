"""The retrieval baseline that needs no model: titles that stand in the query."""

from dataset_builders.title_mentions import TitleMentions


def longest_title_match(queries: list[str], titles: list[str], k: int) -> list[list[str]]:
    """
    Ranks the titles that stand word for word in each query, longest first. It shows how far copying from the query
    gets, so a learned retriever is worth having only above it.

    What counts as standing in a query, [`TitleMentions`] says.

    Args:
        queries (`list[str]`):
            Queries.
        titles (`list[str]`):
            Titles of the collection. Equal titles count once.
        k (`int`):
            Most titles to give per query.

    Returns:
        `list[list[str]]`: per query, at most `k` distinct titles, by falling number of characters; among equally long
        ones, the one that stands first in the query. Empty if no title stands in it.

    Raises:
        `ValueError`: if `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    mentions = TitleMentions(titles)
    rankings = []
    for query in queries:
        found = dict.fromkeys(title for mention in mentions.find(query) for title in mention.titles)
        rankings.append(sorted(found, key=len, reverse=True)[:k])
    return rankings
