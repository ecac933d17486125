"""Prompts in files that a user can replace."""

from pathlib import Path

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

PROMPT_FOLDER = Path(__file__).parent / "prompts"


class PromptTemplate:
    """
    A prompt as a Jinja template in a UTF-8 file. Values are put in as they are: Jinja code in a document's text is
    text. The line break that ends the file is no part of the prompt.

    Args:
        path (`str` or `Path`):
            The file.
        variables (`set[str]`):
            Variables that the template has to use, all of them and no others.

    Attributes:
        shared_prefix (`str`): what every rendered prompt begins with, namely the text in front of the first Jinja tag.

    Raises:
        `FileNotFoundError`: if there is no such file.
        `ValueError`: if it is no valid template, or uses other variables than `variables`.

    Example:

    ```python
    >>> template = PromptTemplate(PROMPT_FOLDER / "query_and_answer.jinja", {"passage"})
    >>> template.render(passage="Velm is a town.").endswith("Passage: Velm is a town.\nQuestion:")
    True
    ```
    """

    def __init__(self, path: str | Path, variables: set[str]):
        self.path = Path(path)
        source = self.path.read_text(encoding="utf-8")
        # Autoescaping is for HTML; the sandbox, because prompt files travel between people.
        environment = SandboxedEnvironment(autoescape=False, undefined=StrictUndefined)
        try:
            tree = environment.parse(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"{path}, line {error.lineno}: not a valid Jinja template ({error.message}).") from error
        used = find_undeclared_variables(tree)
        if used != variables:
            unknown, missing = sorted(used - variables), sorted(variables - used)
            raise ValueError(
                f"{path}: this prompt has to use the variables {sorted(variables)}; unknown: {unknown}, missing: "
                f"{missing}. Mend the file."
            )
        first = tree.body[0].nodes[0] if isinstance(tree.body[0], nodes.Output) else None
        self.shared_prefix = first.data if isinstance(first, nodes.TemplateData) else ""
        self._template = environment.from_string(source)

    def render(self, **values) -> str:
        """
        Fills in the variables.

        Args:
            **values:
                A value for each variable of the template.

        Returns:
            `str`: the prompt, `shared_prefix` at its beginning.

        Raises:
            `ValueError`: if the template cannot be filled in, for instance since it asks for an attribute that a value
                does not have.
        """
        try:
            return self._template.render(**values)
        except TemplateError as error:
            raise ValueError(f"{self.path}: the prompt cannot be filled in ({error}). Mend the file.") from error
