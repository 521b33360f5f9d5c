"""Which scanner and which class lose most."""

from cxr_serving.model.robustness import Loss, Robustness, Scanned


def loss(drop: float) -> Loss:
    return Loss(value=0.8 - drop, drop=drop, interval=None)


def scanned(macro_f1: float, **recalls: float) -> Scanned:
    return Scanned(
        description="another curve",
        macro_f1=loss(macro_f1),
        recalls={name: loss(drop) for name, drop in recalls.items()},
        rejected=None,
    )


def test_the_scanner_and_the_class_that_lose_most_are_known() -> None:
    found = Robustness(
        images=30,
        patients=20,
        macro_f1=0.8,
        recalls={"normal": 0.8, "viral": 0.8},
        rejected=None,
        scanners={
            "darker": scanned(0.1, normal=0.3, viral=-0.1),
            "noisy": scanned(0.2, normal=0.1, viral=0.3),
            "jpeg": scanned(0.2, normal=0, viral=0),
        },
    )
    assert [one.most_affected for one in found.scanners.values()] == ["normal", "viral", "normal"]
    assert Robustness.model_validate_json(found.model_dump_json()) == found
