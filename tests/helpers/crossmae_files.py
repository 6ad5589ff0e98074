"""Checkpoints of CrossMAE, made here under the names that its code writes."""

from helpers.foreign_files import (
    DEC_DEPTH,
    DEC_WIDTH,
    DEPTH,
    PATCH,
    WIDTH,
    linear,
    mae_file,
    noise,
    norm,
    table,
)


def cross_file():
    """TonyLianLong/CrossMAE, models_cross.py with weight_fm and use_input: no final norm of the encoder."""
    w = {
        name: tensor
        for name, tensor in mae_file(table()).items()
        if not name.startswith(("norm.", "decoder_"))
    }
    w |= {"decoder_pos_embed": table(), "wfm.linear.weight": noise(DEC_DEPTH, DEPTH + 1)}
    for i in range(DEC_DEPTH):
        place = f"decoder_blocks.{i}"
        w |= (
            norm(f"dec_norms.{i}", WIDTH)
            | norm(f"{place}.norm1", DEC_WIDTH)
            | norm(f"{place}.norm2", DEC_WIDTH)
        )
        w |= linear(f"{place}.cross_attn.q", DEC_WIDTH, DEC_WIDTH)
        w |= linear(f"{place}.cross_attn.kv", 2 * DEC_WIDTH, WIDTH)
        w |= linear(f"{place}.cross_attn.proj", DEC_WIDTH, DEC_WIDTH)
        w |= linear(f"{place}.mlp.fc1", 4 * DEC_WIDTH, DEC_WIDTH)
        w |= linear(f"{place}.mlp.fc2", DEC_WIDTH, 4 * DEC_WIDTH)
    return w | norm("decoder_norm", DEC_WIDTH) | linear("decoder_pred", PATCH * PATCH * 3, DEC_WIDTH)
