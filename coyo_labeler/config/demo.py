"""Settings of the demo."""

from pydantic import Field

from coyo_labeler.config.base import StageSettings


class DemoSettings(StageSettings):
    """The whole pipeline on real scanned digits."""

    output: str = Field("out/demo", description="folder to write, on this machine")
    cluster: bool = Field(
        False,
        description="submit the jobs with spark-submit to a cluster of two workers on 127.0.0.1",
    )
    port: int = Field(
        18127,
        ge=1024,
        le=65535,
        description="port of the image server on 127.0.0.1; it is part of every URL",
    )
    seed: int = Field(0, ge=0, description="seed of the simulated annotators")
