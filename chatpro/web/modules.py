"""Our own programs and styles for the browser, served under an address that changes with what they say, and may be kept for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatpro.web.headers import FOREVER
from chatpro.web.live import base_path

_HERE = Path(__file__).parent
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


class Module:
    """Files of this folder that belong together; the first is the component's own. Streamlit sends inline code again with each run."""

    def __init__(self, name: str, *files: str) -> None:
        self._bodies = {file: (_HERE / file).read_bytes() for file in files}
        self._version = hashlib.sha256(b"\0".join(self._bodies.values())).hexdigest()[:16]
        self.address = f"{base_path()}/{name}/{self._version}/{files[0]}"
        self.route = Route(f"{base_path()}/{name}/{{version}}/{{file:path}}", self._serve)

    @property
    def js(self) -> str:
        """For `component(js=…)`. The line break tells Streamlit that this is code and not a file's name."""
        return f'const own = await import(new URL("{self.address}", location.origin));\nexport default own.default;'

    async def _serve(self, request: Request) -> Response:
        file = request.path_params["file"]
        if request.path_params["version"] != self._version or file not in self._bodies:
            return Response("Not found.", 404, media_type="text/plain")
        return Response(self._bodies[file], headers={"content-type": _KINDS[Path(file).suffix], "cache-control": FOREVER})
