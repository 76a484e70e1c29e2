"""A process that reads an API with a refresh token.

`python -m tests.extract.http.refreshing API TOKEN_URL CLIENT PATH` reads once for each line of its input, and prints
what came or what went wrong.
"""

import sys

from tasks.errors import TidegateError
from tasks.extract.http.auth.oauth import RefreshToken
from tasks.extract.http.client import HttpClient
from tasks.secret import Secret


def main() -> None:
    """Read until the input ends."""
    api, token_url, client_id, path = sys.argv[1:]
    auth = RefreshToken(token_url, client_id, Secret("grant"), Secret("hush"))
    with HttpClient(api, auth=auth) as client:
        for _ in sys.stdin:
            try:
                print(client.get_json(path).body, flush=True)
            except TidegateError as error:
                print(f"{type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
