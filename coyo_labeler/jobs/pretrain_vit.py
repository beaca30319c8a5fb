"""python jobs/pretrain_vit.py labels=PATH images=PATH output=PATH; torchrun starts several."""

from coyo_labeler.cli import job

if __name__ == "__main__":
    job("pretrain_vit")
