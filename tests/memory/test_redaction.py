"""Secrets go, ordinary text stays."""

from __future__ import annotations

import pytest

from esper.memory.records import Step
from esper.memory.redaction import REDACTED, Redactor, clean_text

SECRETS = [
    "sk-abcdefghijklmnop1234",
    "sk_live_abcdefghijklmnop",
    "ghp_abcdefghijklmnop1234",
    "ghu_abcdefghijklmnop1234",
    "github_pat_abcdefghijklmnop",
    "glpat-abcdefghijklmnop",
    "xoxb-abcdefghijklmnop",
    "AKIAABCDEFGHIJKLMNOP",
    "AIzaabcdefghijklmnop",
    "hf_abcdefghijklmnopqr",
    "npm_abcdefghijklmnopq",
    "pypi-abcdefghijklmnopq",
    "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM",
]
PHRASES = [
    "postgresql://user:{}@host/db",
    "Authorization: Bearer {}",
    "Authorization: Basic {}",
    "password={}",
    "export DB_PASSWORD='{}'",
    "api_key: {}",
    '{{"client_secret": "{}"}}',
    "passphrase = {}",
    "PWD={}",
    "access-key={}",
]
PLAIN = [
    "the tokens: 512 of them",
    "no secret here",
    "https://example.org/a?b=c",
    "the keyboard is basic and the bearer of news",
    "skill sk- and ghp_ short",
    "sort key = name",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_key_is_known_by_its_shape_wherever_it_stands(secret):
    told = Redactor()(Step(number=1, action=f"use {secret} now", result={"deep": [secret]}))
    assert secret not in repr(told)
    assert told.action == f"use {REDACTED} now"


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_secret_is_known_by_what_stands_before_it(phrase):
    told = Redactor()(Step(number=1, error=phrase.format("correcthorse")))
    assert "correcthorse" not in told.error
    assert REDACTED in told.error
    assert Redactor().text(phrase.format("correcthorse")) == told.error


@pytest.mark.parametrize("name", ["password", "db_password", "API-KEY", "clientSecret_token", "credentials"])
def test_a_value_under_a_secret_name_goes_whole(name):
    told = Redactor()(Step(number=1, parameters={name: "correct horse", "other": "stays"}))
    assert told.parameters == {name: REDACTED, "other": "stays"}


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_text_stays_as_it_is(text):
    assert clean_text(text) == text


def test_a_private_key_goes_to_its_end_and_what_follows_stays():
    text = "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nafter"
    assert Redactor().text(text) == f"{REDACTED}\nafter"


def test_secrets_stay_when_that_is_asked_for():
    step = Step(number=1, action=SECRETS[0])
    assert Redactor(secrets=False)(step) == step
