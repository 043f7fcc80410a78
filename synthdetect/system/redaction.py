"""Remove passwords and keys from text before it is shown or recorded."""

import re

# A password ends at the last @ of its word. This may remove too much, but never too little.
_USERINFO = re.compile(r"([a-z][a-z0-9+.\-]{0,30}://)(?:[^\s/?#@:]*:\S*|[^\s/?#]*)@", re.IGNORECASE)
# A value ends at the next &, since a password may contain every other character. The value of
# odbc_connect is a whole connection string.
_SECRET = re.compile(
    r"([?&;][\w.\-]*(?:password|passwd|pwd|secret|token|credential|signature|key|sig|"
    r"odbc_connect)=)[^\s&]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Replace user names, passwords and keys by `***` in everything that looks like a URI."""
    return _SECRET.sub(r"\1***", _USERINFO.sub(r"\1***@", text))
