"""The application for ASGI servers, ``cxr_serving.app:app``, with the environment's settings."""

import sys

from pydantic import ValidationError

from cxr_serving.http.app import create_app
from cxr_serving.http.keys import KeysError
from cxr_serving.http.settings import Settings, problems
from cxr_serving.model.remote_errors import RemoteError

try:
    app = create_app(Settings())
except ValidationError as error:
    sys.exit(problems(error))
except (KeysError, RemoteError) as error:
    sys.exit(str(error))
