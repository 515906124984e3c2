"""The values of secret settings are in no saved or shown form of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import Config, load_config
from pipelines.config.secrets import MASK, is_secret, masked_override, masked_settings, masked_text, without_password

ROOT = Path(__file__).parents[2]
VALUE = "hush-4711"


@pytest.mark.parametrize("name", [
    "spark.hadoop.fs.s3a.secret.key", "spark.hadoop.fs.s3a.access.key", "spark.hadoop.fs.s3a.session.token",
    "spark.hadoop.fs.azure.account.key.lake.dfs.core.windows.net", "spark.hadoop.fs.azure.sas.box.lake.blob.core.windows.net",
    "spark.hadoop.fs.gs.auth.service.account.private.key", "spark.ssl.keyStorePassword", "spark.authenticate.secret",
    "spark.executorEnv.AWS_SECRET_ACCESS_KEY", "spark.hadoop.fs.s3a.bucket.b.encryption.apiKey",
])
def test_a_setting_with_a_secrets_name_is_masked(name):
    assert masked_settings({name: VALUE, "spark.executor.memory": "2g"}) == {name: MASK, "spark.executor.memory": "2g"}


@pytest.mark.parametrize("name", ["spark.executor.memory", "spark.hadoop.fs.s3a.endpoint", "spark.sql.shuffle.partitions",
                                  "spark.driver.host"])
def test_other_settings_are_shown(name):
    assert not is_secret(name)


def test_what_the_users_own_redaction_pattern_names_is_masked_too():
    settings = {"spark.redaction.regex": "(?i)tenant", "spark.hadoop.Tenant.id": VALUE, "spark.app.name": "x"}
    assert masked_settings(settings) == {**settings, "spark.hadoop.Tenant.id": MASK}


def test_a_value_that_carries_a_secret_is_masked_in_part():
    shown = masked_settings({"spark.driver.extraJavaOptions": f"-Xss4m -Djavax.net.ssl.trustStorePassword={VALUE} -Da=b",
                             "spark.hadoop.proxy": f"http://me:{VALUE}@proxy:3128"})
    assert shown == {"spark.driver.extraJavaOptions": f"-Xss4m -Djavax.net.ssl.trustStorePassword={MASK} -Da=b",
                     "spark.hadoop.proxy": f"http://{MASK}@proxy:3128"}


@pytest.mark.parametrize("parameter", ["token", "X-Amz-Signature", "X-Goog-Signature", "sig", "X-Amz-Credential", "access_key"])
def test_what_lets_one_into_a_signed_url_is_masked_and_refused_where_it_would_be_written(parameter):
    url = f"https://host/texts.gz?v=2&{parameter}={VALUE}&part=1"
    assert masked_text(url) == f"https://host/texts.gz?v=2&{parameter}={MASK}&part=1"
    with pytest.raises(ValueError, match="a URL with a password or token would be written into the manifest"):
        without_password(url, "the manifest", "the environment")
    assert without_password("https://host/a?v=2&design=new#sig=1", "the manifest", "") == "https://host/a?v=2&design=new#sig=1"


@pytest.mark.parametrize(("override", "shown"), [
    (f"spark.conf.spark.hadoop.fs.s3a.secret.key={VALUE}", f"spark.conf.spark.hadoop.fs.s3a.secret.key={MASK}"),
    (f"spark.conf={{spark.ssl.keyPassword: {VALUE}, spark.cores.max: 2}}",
     f'spark.conf={{"spark.ssl.keyPassword": "{MASK}", "spark.cores.max": 2}}'),
    (f"spark={{master: local, conf: {{my.password: {VALUE}}}}}",
     f'spark={{"master": "local", "conf": {{"my.password": "{MASK}"}}}}'),
    (f"spark.conf={{a.password: {VALUE}", f"spark.conf={MASK}"),
    ("spark.conf={spark.cores.max: 2}", "spark.conf={spark.cores.max: 2}"),
    ("prepare.tokenizer.kind=bytes", "prepare.tokenizer.kind=bytes"),
    ("train.steps=3", "train.steps=3"),
])
def test_an_override_is_stored_without_its_secret(override, shown):
    assert masked_override(override) == shown


def test_a_configuration_that_is_written_down_holds_no_secret_and_still_has_it_for_spark():
    config = load_config(ROOT / "conf/recipes/gpt-demo.yaml", ROOT / "conf/platforms/local.yaml",
                         [f"spark.conf.spark.hadoop.fs.s3a.secret.key={VALUE}"])
    assert config.platform.spark.conf["spark.hadoop.fs.s3a.secret.key"] == VALUE
    assert VALUE not in config.to_json()
    assert Config.from_json(config.to_json()).platform.spark.conf == {"spark.hadoop.fs.s3a.secret.key": MASK}
