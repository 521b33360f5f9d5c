"""``python -m cxr_serving``: run the service with the settings in the environment."""

import sys

import uvicorn
from pydantic import ValidationError

from cxr_serving.settings import Settings, problems

# A film is answered in well under a second; what hangs longer at shutdown is a stalled upload.
_SHUTDOWN_SECONDS = 10


def main() -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests under way."""
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit(problems(error))
    uvicorn.run(
        "cxr_serving.app:app",
        host=settings.host,
        port=settings.port,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    main()
