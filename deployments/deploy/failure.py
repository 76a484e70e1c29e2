"""`DeployFailed`: a deploy that stopped half way; what is done stands, and another one finishes it."""

from tasks.errors import TidegateError


class DeployFailed(TidegateError):
    """The Prefect server refused or did not answer. What was done before stands; deploying again finishes it."""
