"""The documentation site: ``make docs`` builds it, ``make lint`` checks its links.

With the tag ``links`` the API pages are left out, since importing every module takes longer
than all other checks together.
"""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

# These pages are files of the repository's root, whose links start there.
INCLUDED = {"index", "contributing"}

project = "Chest X-ray retraining"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False

autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
napoleon_use_ivar = True
# A package may export a class of one of its modules: its name then has two targets.
suppress_warnings = ["ref.python"]

if tags.has("links"):  # noqa: F821, Sphinx defines it
    exclude_patterns += ["api.*", "generated/**"]
    suppress_warnings += ["toc.excluded"]


def repository_files(app: Sphinx, page: nodes.document) -> None:
    """Shows a link to a file outside the site as text. Sphinx warns of what is left: dead links."""
    base = app.srcdir.parent if app.env.docname in INCLUDED else app.srcdir
    for link in list(page.findall(pending_xref)):
        if link["reftype"] == "myst" and (base / link["reftarget"]).exists():
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    """Registers the rule for links that leave the site."""
    app.connect("doctree-read", repository_files)
