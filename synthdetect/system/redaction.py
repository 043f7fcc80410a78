"""Keeping passwords and keys out of what is shown or recorded."""

import re

# A password ends at the last @ of its word: what is cut too much is no secret.
_USERINFO = re.compile(r"([a-z][a-z0-9+.\-]{0,30}://)(?:[^\s/?#@:]*:\S*|[^\s/?#]*)@", re.IGNORECASE)
# A value ends at the next &, since a password may hold all else. ODBC's is a whole connection.
_SECRET = re.compile(
    r"([?&;][\w.\-]*(?:password|passwd|pwd|secret|token|credential|signature|key|sig|"
    r"odbc_connect)=)[^\s&]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Text with user names, passwords and keys taken out of whatever looks like a URI."""
    return _SECRET.sub(r"\1***", _USERINFO.sub(r"\1***@", text))
