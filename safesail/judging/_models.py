"""Ask an endpoint which models it has: free, and shows whether it answers at all."""

from __future__ import annotations

from safesail.errors import JudgeError
from safesail.judging._judge import _checked_url, _key


def list_models(url: str, key_variable: str = "OPENAI_API_KEY") -> list[str]:
    """Names of the models that an endpoint lists; none where it has no such list.

    Args:
        url: base URL.
        key_variable: environment variable that holds the key.

    Raises:
        JudgeError: no key, or the endpoint cannot be reached or refuses the key.
    """
    import openai

    url = _checked_url(url, key_variable)
    client = openai.OpenAI(base_url=url, api_key=_key(url, key_variable), timeout=20, max_retries=0)
    try:
        return [model.id for model in client.models.list()]
    except openai.NotFoundError:
        return []
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise JudgeError(f"{url} refuses the key in {key_variable}") from error
    except openai.APIError as error:
        raise JudgeError(f"{url} cannot be asked: {error.message}") from error
