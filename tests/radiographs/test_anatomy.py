import numpy as np

from cxr_assets.radiographs import anatomy, naming


def test_bacterial_disease_is_in_one_lung_and_viral_in_both():
    x, y = anatomy._X, anatomy._Y
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patient = anatomy.Anatomy.sample(rng)
        lungs = anatomy._lungs(patient, x, y, 0.0)
        shares = {}
        for label in naming.KAGGLE_CLASSES:
            disease = np.abs(lungs * anatomy._disease(patient, label, x, y, rng))
            total = disease.sum()
            shares[label] = float(disease[x > 0].sum() / total) if total else None
        assert shares["normal"] is None
        assert not 0.1 < shares["bacterial_pneumonia"] < 0.9
        assert 0.2 < shares["viral_pneumonia"] < 0.8
