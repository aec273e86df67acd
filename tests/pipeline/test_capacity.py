"""The requests of the capacity plan are those that the services send."""

import pytest

from tests.counting_s3 import counting_s3
from tests.pipeline.services import until
from tests.pipeline.world import song
from tools.capacity import measured, s3_requests


@pytest.mark.parametrize("handoff_in_s3", [False, True], ids=["folder", "s3"])
def test_an_order_costs_as_many_s3_requests_as_the_plan_says(pipeline, world, handoff_in_s3):
    def spend(source, status):
        """Send an order; return its requests and its stems' sizes."""
        requests.taken()
        outcome = pipeline.outcome(f"stems/{pipeline.order(source)}")
        pipeline.until_no_lag()
        until(lambda: "waiting/" not in str(pipeline.keys()), "an empty handoff")
        assert outcome["status"] == status
        return requests.taken(), [stem["bytes"] for stem in (outcome["stems"] or {}).values()]

    pipeline.s3.put_object(Bucket=pipeline.bucket, Key="songs/long.wav", Body=song(100))
    with counting_s3(pipeline.s3_server.port) as requests:
        settings = {"S3_ENDPOINT_URL": requests.url, "S3_PREFIX": "stems/"}
        if handoff_in_s3:
            settings["HANDOFF_URL"] = f"s3://{pipeline.bucket}/waiting"
        pipeline.started("processor", "uploader", **settings)
        small, small_stems = spend(world.url("/song.wav"), "succeeded")
        large, large_stems = spend(f"s3://{pipeline.bucket}/songs/long.wav", "succeeded")
        failed, _ = spend(world.url("/nothing"), "failed")

    def planned(stems, *, source_in_s3):
        return s3_requests.of_processor(
            stems, source_in_s3=source_in_s3, handoff_in_s3=handoff_in_s3
        ) + s3_requests.of_uploader(stems, handoff_in_s3=handoff_in_s3)

    assert max(small_stems) < measured.MULTIPART_BYTES <= min(large_stems)
    assert small == planned(small_stems, source_in_s3=False)
    assert large == planned(large_stems, source_in_s3=True)
    assert failed == planned([], source_in_s3=False)
    assert "/.reuse/" not in str(pipeline.keys())
