"""Publishes to Redis Streams. The address is the stream; the entry's id confirms a message."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from .background import Background
from .driver import Away, Driver, Lost, Message

# Connections, for messages that are under way at once. Others wait for a free one, as long as their timeout.
MAX_CONNECTIONS = 16
# With these Redis takes no entry now: it starts, fails over, or has no memory, disk or replicas. It may take one later.
BUSY_ERRORS = ('CLUSTERDOWN', 'MASTERDOWN', 'MISCONF', 'NOREPLICAS', 'TRYAGAIN')


class Redis(Driver):
    """A Redis server, with a pool of connections.

    Options are the arguments of redis.Redis or a `url`, and `maxlen`: about so many entries stay in a stream.
    """

    id_header, key_header = 'id', 'key'

    def __init__(self, options: Mapping[str, Any]) -> None:
        from redis.asyncio import Redis as Client

        # Not the class of the same name in redis.retry: the asynchronous client needs its own.
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        kept = {'max_connections': MAX_CONNECTIONS, 'retry': Retry(NoBackoff(), 0)} | dict(options)
        self._maxlen = kept.pop('maxlen', None)
        if self._maxlen is not None and not isinstance(self._maxlen, int):
            raise ValueError('maxlen must be a whole number')
        url = kept.pop('url', None)
        self._client = Client(**kept) if url is None else Client.from_url(url, **kept)
        # The client raises at the limit, as if Redis were away.
        self._free = asyncio.Semaphore(self._client.connection_pool.max_connections)
        self._background = Background('webhooks-redis')

    def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        """Add an entry to the stream, and return the stream and the entry's id.

        Raises Away after `timeout` seconds or if Redis takes no entry now, and Lost if there is no connection, or it
        ends. Any other error of redis is a refusal.
        """
        return self._background.run(self._add(message), timeout)

    async def _add(self, message: Message) -> Mapping[str, object]:
        from redis import exceptions

        entry = {
            'id': message.id,
            'key': message.key,
            'headers': json.dumps(dict(message.headers), ensure_ascii=False),
            'body': message.body,
        }
        try:
            async with self._free:
                added = await self._client.xadd(message.address, entry, maxlen=self._maxlen)
        except (exceptions.AuthenticationError, exceptions.AuthorizationError):
            raise
        except exceptions.ConnectionError as error:
            # A restart, for example, has ended the idle connections too.
            await self._client.connection_pool.disconnect(inuse_connections=False)
            raise Lost(str(error)) from error
        except exceptions.TimeoutError as error:
            raise Away(str(error)) from error
        except (exceptions.OutOfMemoryError, exceptions.ReadOnlyError, exceptions.ClusterError) as error:
            raise Away(str(error)) from error
        except exceptions.ResponseError as error:
            if not str(error).startswith(BUSY_ERRORS):
                raise
            raise Away(str(error)) from error
        return {'stream': message.address, 'id': added.decode() if isinstance(added, bytes) else added}

    def close(self) -> None:
        """Close the connections, and end the thread."""
        self._background.close(self._client.aclose())
