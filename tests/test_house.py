"""The house holds: who may import what, where HTML may come from, and that each page begins with its gate.

DESIGN-level promises (a page never reads before its gate, the rules need no browser, no person's data in a shared cache)
are only as good as the next careless line. Here that line turns a test red. The tests walk over whatever files exist, so a
new file is under the rules from its first day.

The rule for HTML: what goes into `….html(…)`, or as `html=` into a component, is written in this repository, or went
through an escape. So its argument may be built, by +, f-strings and join, only from
  - constants, and names that are bound to such an expression in the same function or file (never a parameter),
  - calls of `escape` / `html.escape`,
  - calls of helpers whose name ends in `_html`; what such a helper returns is held to the same rule,
  - numbers with a numeric format (`{n:d}`, `{share:.0%}`), which text can't pass.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Room → the rooms it may import. A room is a file or a folder of chatpro, or app, or pages. The libraries stand below.
MAY_IMPORT = {
    "domain": {"domain"},
    "errors": {"errors"},
    "config": {"config", "errors"},
    "tokens": {"tokens", "config", "errors"},
    "written": {"written", "domain"},
    "storage": {"storage", "domain", "tokens", "config", "errors"},
    "models": {"models", "domain", "tokens", "config", "errors"},
    "services": {"services", "written", "domain", "storage", "models", "tokens", "config", "errors"},
    "charts": {"charts", "domain", "config", "errors"},
    "sample": {"sample", "services", "storage", "models", "tokens", "domain", "config", "errors"},
    "bootstrap": {"bootstrap", "sample", "services", "storage", "models", "tokens", "domain", "config", "errors"},
    "web": {"web", "bootstrap", "services", "charts", "domain", "config", "errors"},
    "pages": {"web", "services", "charts", "domain", "config", "errors"},
    "app": {"web", "bootstrap", "services", "domain", "config", "errors"},
    "__main__": {"bootstrap", "services", "storage", "models", "tokens", "domain", "config", "errors", "web"},
}

# Library → the only places of the product that may import it. A second place would be a second way of doing what the first does.
ONLY_IN = {
    "streamlit": ("app.py", "pages/", "chatpro/web/"),
    "starlette": ("app.py", "pages/", "chatpro/web/"),
    "plotly": ("chatpro/charts.py",),
    "duckdb": ("chatpro/storage/",),
    "psycopg": ("chatpro/storage/",),
    "openai": ("chatpro/models/openai.py",),
    "xllamacpp": ("chatpro/models/local.py",),
    "tiktoken": ("chatpro/tokens.py",),
}

# What Streamlit may keep for the whole process, as "file::function", each with the reason why no person's data is in it.
CACHED: dict[str, str] = {}

# Spelled in pieces, so that this file does not name them.
REGISTRIES = ["py" + "pi.org", "python" + "hosted.org", "registry." + "npmjs", "deb." + "debian.org", "extra-" + "index-url"]
MACHINE_PATHS = re.compile(r"(?<![\w.>/-])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me|op" + r"t)/\w|/tmp/" + r"w/")


def product_files() -> list[Path]:
    found = [*(ROOT / "chatpro").rglob("*.py"), *(ROOT / "pages").glob("*.py")]
    return sorted(found + [path for path in [ROOT / "app.py"] if path.exists()])


def pages() -> list[Path]:
    return sorted((ROOT / "pages").glob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room_of(module: str) -> str:
    """`chatpro.web.gate` → web; `chatpro` itself, which holds a version and nothing else, is no room."""
    parts = module.split(".")
    return parts[1] if parts[0] == "chatpro" and len(parts) > 1 else parts[0]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every module a file names in an import, wherever it stands, also for types only and by import_module("…")."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from chatpro import errors` names the room only in the second part.
            yield from ((node.lineno, f"chatpro.{alias.name}" if base == "chatpro" else base) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            if isinstance(node.func, (ast.Name, ast.Attribute)) and _last_name(node.func) in ("import_module", "__import__"):
                yield node.lineno, node.args[0].value


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# --- Imports ----------------------------------------------------------------------------------------------------------


def test_import_contracts_of_pyproject_hold() -> None:
    """import-linter's contracts, which also see imports that go through a third module."""
    lint = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_rooms_import_only_the_rooms_below_them() -> None:
    """Pages on top, the domain at the bottom; a new room has to be entered here first."""
    wrong = []
    for path in product_files():
        room = room_of(module_of(path))
        if room == "chatpro":
            continue
        allowed = MAY_IMPORT[room]
        for line, module in imports_of(path):
            if module.split(".")[0] in ("chatpro", "app", "pages") and room_of(module) not in allowed | {"chatpro", "__version__"}:
                wrong.append(f"{name_of(path)}:{line} imports {module}")

    assert wrong == []


def test_the_domain_stands_on_the_standard_library_alone() -> None:
    """Rules of money and time that need no package can be read, tested and trusted without one."""
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in product_files()
        if room_of(module_of(path)) in ("domain", "errors")
        for line, module in imports_of(path)
        if module.split(".")[0] not in sys.stdlib_module_names and not module.startswith("chatpro")
    ]

    assert wrong == []


def test_each_library_is_imported_in_its_one_place() -> None:
    """Streamlit on the pages, plotly in the charts, one file for each model library, the engines in storage."""
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in product_files()
        for line, module in imports_of(path)
        if (places := ONLY_IN.get(module.split(".")[0])) and not name_of(path).startswith(places)
    ]

    assert wrong == []


def test_services_know_no_plug() -> None:
    """Services name `chatpro.models` and the store's interface and verbs, never one provider or one engine."""
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in product_files()
        if room_of(module_of(path)) == "services"
        for line, module in imports_of(path)
        if module.startswith(("chatpro.models.", "chatpro.storage.duckdb", "chatpro.storage.postgres"))
    ]

    assert wrong == []


@pytest.mark.parametrize("room", ["domain", "services"])
def test_importing_a_room_in_a_fresh_process_loads_no_page_library(room: str) -> None:
    """chatpro.services.answering, and all beside it, load neither streamlit nor plotly nor pandas, which cost the first visitor a second."""
    modules = [module_of(path) for path in product_files() if room_of(module_of(path)) == room]
    script = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    script += "print(sorted({'streamlit', 'starlette', 'plotly', 'pandas'} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)

    assert (loaded.stdout.strip(), loaded.stderr) == ("[]", "")


# --- HTML -------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(75)
def test_html_is_written_by_us_or_escaped() -> None:
    """Nothing that a person or a model wrote reaches st.html, a component's html, or a helper that makes HTML."""
    wrong = [f"{name_of(path)}:{problem}" for path in product_files() for problem in unsafe_html(parse(path))]

    assert wrong == []


@pytest.mark.fault(75)
def test_streamlit_is_never_told_to_trust_html() -> None:
    """unsafe_allow_html and unsafe_allow_javascript stand nowhere, not even as False: there is nothing to switch on later."""
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in product_files()
        for node in ast.walk(parse(path))
        if (isinstance(node, ast.keyword) and (node.arg or "").startswith("unsafe_allow_"))
        or (isinstance(node, ast.Constant) and str(node.value).startswith("unsafe_allow_"))
    ]

    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "st.html(name)",
        "st.html(f'<b>{name}</b>')",
        "st.html('<b>' + name)",
        "st.html('<b>%s</b>' % name)",
        "st.html('<b>{}</b>'.format(name))",
        "st.html(f'<b>{name!s:>10}</b>')",
        "def draw(text):\n    st.html(text)",
        "def draw(text):\n    body = '<b>'\n    body += text\n    st.html(body)",
        "column.html(''.join(names))",
        "st.html(''.join(f'<li>{n}</li>' for n in names))",
        "def row_html(text):\n    return f'<b>{text}</b>'",
        "component('x', html=f'<b>{name}</b>')",
        "st.html(body=name)",
        "st.html(open(path).read())",
    ],
)
def test_the_html_rule_sees_unescaped_text(source: str) -> None:
    """The rule bites on each way of smuggling text in."""
    assert list(unsafe_html(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "st.html('<hr>')",
        "RULE = '<hr>'\nst.html(RULE)",
        "st.html(f'<b>{escape(name)}</b>')",
        "st.html('<b>' + html.escape(name) + '</b>')",
        "st.html(f'<i>{count:d} of {share:.0%}</i>')",
        "st.html(''.join(f'<li>{escape(n)}</li>' for n in names))",
        "st.html(row_html(name))",
        "def row_html(text):\n    cell = f'<td>{escape(text)}</td>'\n    return '<tr>' + cell if text else '<tr>'",
        "component('x', html='<div></div>', css=CSS)",
    ],
)
def test_the_html_rule_lets_escaped_text_pass(source: str) -> None:
    """The rule can be kept: everything a page needs has a form that passes."""
    assert list(unsafe_html(ast.parse(source))) == []


def unsafe_html(tree: ast.Module) -> Iterator[str]:
    """Line and source of each HTML argument, and each return of an `_html` helper, that breaks the rule at the top of this file."""
    for scope, nodes in _scopes(tree):
        bound = _bindings(tree) if scope is tree else {**_bindings(tree), **_bindings(scope)}
        for node in nodes:
            values: list[ast.expr] = []
            if isinstance(node, ast.Call):
                values = [keyword.value for keyword in node.keywords if keyword.arg == "html"]
                if isinstance(node.func, ast.Attribute) and node.func.attr == "html":
                    values += node.args[:1] + [keyword.value for keyword in node.keywords if keyword.arg == "body"]
            elif isinstance(node, ast.Return) and isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)) and scope.name.endswith("_html") and node.value:
                values = [node.value]
            for value in values:
                if not _is_safe_html(value, bound, frozenset()):
                    yield f"{value.lineno} {ast.unparse(value)[:80]}"


def _scopes(tree: ast.Module) -> Iterator[tuple[ast.Module | ast.FunctionDef | ast.AsyncFunctionDef, list[ast.AST]]]:
    """The module and each function with the nodes that are its own, not those of a function inside it."""
    scopes: list[ast.Module | ast.FunctionDef | ast.AsyncFunctionDef] = [tree]
    scopes += [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for scope in scopes:
        yield scope, list(_own_nodes(scope))


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _own_nodes(child)


def _bindings(scope: ast.AST) -> dict[str, list[ast.expr | None]]:
    """Name → everything it is bound to in this scope; None where that can't be known (parameters, loops, unpacking)."""
    bound: dict[str, list[ast.expr | None]] = {}
    for node in _own_nodes(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                known = isinstance(target, ast.Name)
                for name in (n.id for n in ast.walk(target) if isinstance(n, ast.Name)):
                    bound.setdefault(name, []).append(node.value if known else None)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and isinstance(node.target, ast.Name):
            bound.setdefault(node.target.id, []).append(node.value)
        elif isinstance(node, ast.arg):
            bound.setdefault(node.arg, []).append(None)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            for name in (n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)):
                bound.setdefault(name, []).append(None)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            for name in (n.id for n in ast.walk(node.optional_vars) if isinstance(n, ast.Name)):
                bound.setdefault(name, []).append(None)
    return bound


def _is_safe_html(value: ast.expr | None, bound: dict[str, list[ast.expr | None]], seen: frozenset[str]) -> bool:
    def safe(part: ast.expr | None) -> bool:
        return _is_safe_html(part, bound, seen)

    match value:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            values = bound.get(name)
            return name in seen or (bool(values) and all(_is_safe_html(v, bound, seen | {name}) for v in values or []))
        case ast.JoinedStr(values=parts):
            return all(safe(part) for part in parts)
        case ast.FormattedValue(value=inner, format_spec=spec, conversion=-1):
            return safe(inner) or _is_numeric(spec)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return safe(left) and safe(right)
        case ast.IfExp(body=body, orelse=orelse):
            return safe(body) and safe(orelse)
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[ast.List(elts=parts) | ast.Tuple(elts=parts)]):
            return all(safe(part) for part in parts)
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[ast.GeneratorExp(elt=part) | ast.ListComp(elt=part)]):
            return safe(part)
        case ast.Call(func=ast.Name() | ast.Attribute() as func):
            return _last_name(func) == "escape" or _last_name(func).endswith("_html")
    return False


def _is_numeric(spec: ast.expr | None) -> bool:
    """A format such as d, .1f, ,d or .0%: formatting text with it raises, so no text comes through."""
    return (
        isinstance(spec, ast.JoinedStr)
        and len(spec.values) == 1
        and isinstance(spec.values[0], ast.Constant)
        and bool(re.fullmatch(r"[,_.\d]*[dfeg%]", str(spec.values[0].value)))
    )


# --- Pages, caches, exceptions ----------------------------------------------------------------------------------------


@pytest.mark.fault(8)
def test_streamlit_caches_hold_nothing_but_the_listed_functions() -> None:
    """st.cache_data and st.cache_resource are shared by all visitors: each use stands on the list with its reason."""
    found = []
    for path in product_files():
        tree = parse(path)
        decorators = {
            id(part): f"{name_of(path)}::{node.name}"
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for decorator in node.decorator_list
            for part in ast.walk(decorator)
        }
        mentions = [n for n in ast.walk(tree) if isinstance(n, (ast.Name, ast.Attribute)) and _last_name(n) in ("cache_data", "cache_resource")]
        mentions_in_imports = [n for n in ast.walk(tree) if isinstance(n, ast.alias) and n.name in ("cache_data", "cache_resource")]
        found += [decorators.get(id(n), f"{name_of(path)}:{n.lineno}") for n in [*mentions, *mentions_in_imports]]

    assert sorted(set(found) - set(CACHED)) == []


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.stem)
def test_each_page_begins_with_its_gate(page: Path) -> None:
    """The first statement after docstring and imports is the gate, under the page's own name: nothing is read or drawn before."""
    statements = [
        n for n in parse(page).body if not isinstance(n, (ast.Import, ast.ImportFrom)) and not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
    ]

    assert statements, f"{page.name} has no gate"
    assert ast.unparse(statements[0]) == f"account = gate.page('{page.stem}')"
    assert any(
        alias.name == "gate" and alias.asname is None
        for n in parse(page).body
        if isinstance(n, ast.ImportFrom) and n.module == "chatpro.web"
        for alias in n.names
    )


@pytest.mark.fault(40)
def test_no_exception_is_swallowed() -> None:
    """No bare except, and no broad one that does nothing: StopException and CancelledError must get through, faults must be heard."""
    wrong = [
        f"{name_of(path)}:{handler.lineno}"
        for path in product_files()
        for handler in ast.walk(parse(path))
        if isinstance(handler, ast.ExceptHandler) and (handler.type is None or (_is_broad(handler.type) and _does_nothing(handler.body)))
    ]

    assert wrong == []


def _is_broad(kind: ast.expr) -> bool:
    kinds: Iterable[ast.expr] = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(_last_name(k) in ("Exception", "BaseException") for k in kinds)


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(isinstance(n, (ast.Pass, ast.Continue)) or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)) for n in body)


# --- Every file -------------------------------------------------------------------------------------------------------


def texts() -> Iterator[tuple[str, str]]:
    """Each text file of the repository, committed or about to be. Vendored files and vocabularies were written elsewhere."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in sorted(set(listed.decode().split("\0"))):
        path = ROOT / name
        if name and path.is_file() and not name.startswith(("data/tiktoken/", "chatpro/web/vendor/")):
            content = path.read_bytes()
            if b"\0" not in content:
                yield name, content.decode("utf-8", "replace")


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    """Where packages come from is the machine's business (pip's own configuration), and a path of one machine works on that one only."""
    wrong = [
        f"{name}:{number}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if any(host in line for host in REGISTRIES) or MACHINE_PATHS.search(line)
    ]

    assert wrong == []
