"""The process behind `tests.servers.tokens`: `python -m tests.servers.token_site FOLDER`, until its input ends.

Django with django-oauth-toolkit and simplejwt as they are; ours are only the two APIs that they guard, and a way to put
them into a state that would take a browser or an hour.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

LIFETIME = 3600
"""Seconds that a token is good for."""

PAGES = 3


def configure(folder: Path) -> None:
    """Set Django up, with its database in `folder`."""
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": folder / "site.db",
                "OPTIONS": {"timeout": 60, "transaction_mode": "IMMEDIATE"},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider", "rest_framework"],
        # Tables without their histories, which take seconds to replay.
        MIGRATION_MODULES={"auth": None, "contenttypes": None, "oauth2_provider": None},
        OAUTH2_PROVIDER={"ACCESS_TOKEN_EXPIRE_SECONDS": LIFETIME, "SCOPES": {"read": "read"}},
        # The usual one is slow on purpose.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="long enough that no library warns about its length",
        SIMPLE_JWT={"ACCESS_TOKEN_LIFETIME": timedelta(seconds=LIFETIME)},
        USE_TZ=True,
    )
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)


def routes() -> list[Any]:
    """The site's paths."""
    from django.urls import path
    from oauth2_provider.contrib.rest_framework import OAuth2Authentication
    from oauth2_provider.views import TokenView
    from rest_framework.permissions import BasePermission, IsAuthenticated
    from rest_framework.response import Response
    from rest_framework.views import APIView
    from rest_framework_simplejwt.authentication import JWTAuthentication
    from rest_framework_simplejwt.views import TokenObtainPairView

    class HasToken(BasePermission):  # type: ignore[misc]  # has no types
        """A client's own token has no user."""

        def has_permission(self, request: Any, view: Any) -> bool:
            return request.auth is not None

    class Items(APIView):  # type: ignore[misc]  # has no types
        """Pages of one item."""

        def get(self, request: Any) -> Any:
            page = int(request.GET.get("page", "1"))
            link = f"{request.path}?page={page + 1}" if page < PAGES else None
            return Response({"rows": [{"id": page}], "next_url": link})

    guard, jwt = [OAuth2Authentication], [JWTAuthentication]
    return [
        path("token", TokenView.as_view()),
        path("login", TokenObtainPairView.as_view()),
        path("items", Items.as_view(authentication_classes=guard, permission_classes=[HasToken])),
        path("jwt-items", Items.as_view(authentication_classes=jwt, permission_classes=[IsAuthenticated])),
    ]


def do(order: dict[str, Any]) -> dict[str, Any]:
    """What a person would do in the site's administration."""
    from django.contrib.auth.models import User
    from django.utils import timezone
    from oauth2_provider.models import AccessToken, Application, RefreshToken

    now = timezone.now()
    match order.pop("do"):
        case "user":
            User.objects.create_user(**order)
        case "client":
            secret = order["client_secret"]
            kind = Application.CLIENT_CONFIDENTIAL if secret else Application.CLIENT_PUBLIC
            grant = Application.GRANT_AUTHORIZATION_CODE if order.pop("user") else Application.GRANT_CLIENT_CREDENTIALS
            Application.objects.create(
                client_type=kind, authorization_grant_type=grant, redirect_uris="http://127.0.0.1/", **order
            )
        case "grant":
            application = Application.objects.get(client_id=order["client_id"])
            user, _ = User.objects.get_or_create(username="ann")
            access = AccessToken.objects.create(
                user=user, application=application, token=order["token"] + "-access", expires=now, scope="read"
            )
            RefreshToken.objects.create(user=user, application=application, token=order["token"], access_token=access)
        case "expire":
            AccessToken.objects.filter(application__client_id=order["client_id"]).update(expires=now)
        case "live tokens":
            of = RefreshToken.objects.filter(application__client_id=order["client_id"], revoked=None)
            return {"refresh": [one.token for one in of]}
    return {}


def recorded(application: Callable[..., Iterable[bytes]], log: Path) -> Callable[..., Iterable[bytes]]:
    """`application`, with each request written to `log` before it is answered."""
    lock = threading.Lock()

    def record(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/administration":
            order = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            start("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(do(order)).encode()]
        headers = {name[5:].lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
        with lock, log.open("a") as file:
            print(json.dumps({"path": environ["PATH_INFO"], "headers": headers}), file=file)
        return application(environ, start)

    return record


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def main() -> None:
    """Serve until the input ends; the first line of the output is the port."""
    folder = Path(sys.argv[1])
    configure(folder)
    from django.core.wsgi import get_wsgi_application

    application = recorded(get_wsgi_application(), folder / "requests")
    with make_server("127.0.0.1", 0, application, _Server, _Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.read()


def __getattr__(name: str) -> Any:
    # Django reads the routes when the first request comes, and they can only be made once it is set up.
    if name == "urlpatterns":
        return routes()
    raise AttributeError(name)


if __name__ == "__main__":
    main()
