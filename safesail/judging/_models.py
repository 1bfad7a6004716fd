"""Ask an endpoint which models it has: free, and shows whether it answers at all."""

from __future__ import annotations

from safesail.errors import JudgeError
from safesail.judging._credentials import checked_url, key_for, without_key


def list_models(url: str, key_variable: str = "OPENAI_API_KEY") -> list[str]:
    """Names of the models that an endpoint lists; none where it has no such list.

    Args:
        url: base URL.
        key_variable: environment variable that holds the key.

    Raises:
        JudgeError: no key, or the endpoint cannot be reached or refuses the key.
    """
    import openai

    url = checked_url(url, key_variable)
    key = key_for(url, key_variable)
    client = openai.OpenAI(base_url=url, api_key=key, timeout=20, max_retries=0)
    try:
        return [model.id for model in client.models.list()]
    except openai.NotFoundError:
        return []
    # An endpoint may echo the key in its message, so the cause is not shown.
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        raise JudgeError(f"{url} refuses the key in {key_variable}") from None
    except openai.APIError as error:
        reason = without_key(error.message, key)
        raise JudgeError(f"{url} cannot be asked: {reason}") from None
