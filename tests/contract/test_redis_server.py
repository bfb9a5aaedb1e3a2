"""The Redis that other tests are run with is one: it keeps, forgets, stands still and comes back."""

import pytest
import redis

from redis_server import running_redis


def test_it_answers_by_socket_and_by_tcp_and_forgets_between_tests(redis_server):
    with redis_server.client() as client:
        client.set("key", "value")
    with redis.Redis.from_url(redis_server.tcp_url) as client:
        assert client.get("key") == b"value"


def test_it_is_empty_for_the_next_test(redis_server):
    with redis_server.client() as client:
        assert client.dbsize() == 0


def test_it_stands_still_and_goes_on_and_comes_back_empty_where_it_was():
    with running_redis(password="not-so-secret") as server:
        with redis.Redis.from_url(server.tcp_url, socket_timeout=0.05, retry=None) as client:
            client.set("key", "value")
            with server.stopped(), pytest.raises(redis.TimeoutError):
                client.get("key")
            with server.client() as patient:
                assert patient.get("key") == b"value"
        server.stop()
        with pytest.raises(redis.ConnectionError), redis.Redis.from_url(server.tcp_url, retry=None) as client:
            client.ping()
        server.start()
        with server.client() as client:
            assert client.get("key") is None
