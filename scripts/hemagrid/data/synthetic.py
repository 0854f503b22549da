"""Drawn pictures of a blood smear: the demonstration's data set, made without a network.

Each class shows what a haematologist knows it by: size, nucleus, granules and the colour of the
cytoplasm (Rodak & Carr, Clinical Hematology Atlas), in the colours of a May-Grunwald-Giemsa
stain. The set also holds what real collections hold: copies, near copies, one picture under
several labels, and a file that is no picture. Lengths are in half-widths of the picture: its
centre is (0, 0), its edges are at -1 and 1.
"""

import os
import shutil
import tempfile
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from hemagrid.data.corruptions import corrupt
from hemagrid.errors import InputError
from hemagrid.logs import track

CLASS_NAMES = (
    *("basophil", "eosinophil", "erythroblast", "ig"),
    *("lymphocyte", "monocyte", "neutrophil", "platelet"),
)
NEAR_DISTANCE = 4  # largest pHash Hamming distance of a planted near duplicate

_CANVAS = 144  # drawn at this size and then reduced: the same cell at every image size
_CREAM, _LILAC = (254, 231, 206), (229, 223, 237)  # the empty slide of two laboratories
_RED_CELL, _PALLOR = (204, 168, 162), (246, 222, 202)
_CHROMATIN = (78, 34, 128)


def write_smears(
    folder,
    per_class,
    image_size,
    seed,
    duplicates=0,
    near_duplicates=0,
    junk=0,
    stain_shift=None,
):
    """Write a folder of class folders with PNG pictures.

    The folder appears once it is complete. A picture depends on (seed, class, index) alone.

    Args:
        folder: Path of the folder, which must be empty or absent.
        per_class: Number of cells per class.
        image_size: Edge of the pictures in pixels.
        seed: Seed of everything drawn.
        duplicates: Number of cells that come a second time as the same bytes
            (`*_copy.png`), from each class in turn.
        near_duplicates: Number of other cells that come a second time slightly changed
            (`*_near.png`), at a pHash distance of 1 to `NEAR_DISTANCE`.
        junk: Number of class folders that hold one and the same picture of no cell
            (`artefact.png`).
        stain_shift: Severity of that corruption, 1 to 5, of every cell, or None.

    Raises:
        InputError: If the folder holds files, or there are fewer cells than copies asked
            for, or fewer classes than `junk`.
    """
    folder = Path(folder)
    cells = per_class * len(CLASS_NAMES)
    if duplicates + near_duplicates > cells:
        raise InputError(
            f"smears: {duplicates} duplicates and {near_duplicates} near duplicates of "
            f"{cells} cells asked for, expected at most one of each cell; plant fewer "
            "or draw more per class"
        )
    if junk > len(CLASS_NAMES):
        raise InputError(
            f"smears: junk under {junk} labels asked for, expected at most "
            f"{len(CLASS_NAMES)}, the number of classes"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder}: the generated smears go here, found other files, expected an "
            "empty or absent folder; remove it or choose another"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        tree = Path(temporary, folder.name)
        for class_name in track(CLASS_NAMES, "Drawing cells", step=per_class):
            (tree / class_name).mkdir(parents=True)
            for index in range(per_class):
                rng = _rng(seed, class_name, index)
                picture = draw_cell(class_name, image_size, rng)
                if stain_shift:
                    (picture,) = corrupt(
                        picture[None], [index], "stain_shift", stain_shift, seed
                    )
                Image.fromarray(picture).save(_path(tree, class_name, index))
        for class_name, index in _cells_in_turn(0, duplicates):
            path = _path(tree, class_name, index)
            shutil.copyfile(path, path.with_stem(f"{path.stem}_copy"))
        # Numbered after the copies, so that no cell comes three times.
        for class_name, index in _cells_in_turn(duplicates, near_duplicates):
            path = _path(tree, class_name, index)
            changed = _nearly(np.asarray(Image.open(path)), seed, class_name, index)
            Image.fromarray(changed).save(path.with_stem(f"{path.stem}_near"))
        artefact = Image.fromarray(_draw_artefact(image_size, np.random.default_rng(seed)))
        for class_name in CLASS_NAMES[:junk]:
            artefact.save(tree / class_name / "artefact.png")
        (tree / CLASS_NAMES[0] / "broken.png").write_text("This is no picture.\n")
        os.replace(tree, folder)


def draw_cell(class_name, image_size, rng):
    """Draw one cell among red cells.

    Args:
        class_name: One of `CLASS_NAMES`.
        image_size: Edge of the picture in pixels.
        rng: A NumPy random generator.

    Returns:
        A picture, uint8 (image_size, image_size, 3).

    Raises:
        InputError: If there is no such class.
    """
    if class_name not in _CELLS:
        raise InputError(
            f"class {class_name!r} cannot be drawn, expected one of {', '.join(CLASS_NAMES)}"
        )
    return _finish(_CELLS[class_name](rng), image_size, rng)


def _rng(seed, class_name, *numbers):
    return np.random.default_rng([seed, CLASS_NAMES.index(class_name), *numbers])


def _path(tree, class_name, index):
    return tree / class_name / f"{class_name}_{index:04}.png"


def _cells_in_turn(first, count):
    """Yield (class name, index) of `count` cells from the `first` on, classes in turn."""
    for number in range(first, first + count):
        index, label = divmod(number, len(CLASS_NAMES))
        yield CLASS_NAMES[label], index


def _nearly(picture, seed, class_name, index):
    """Return the same cell a little brighter and less evenly lit, until its pHash changes."""
    rng = _rng(seed, class_name, index, 1)
    original = imagehash.phash(Image.fromarray(picture))
    for strength in np.arange(0.5, 20, 0.1):
        light = strength * _smooth_noise(rng, 0.25, len(picture))
        changed = _to_bytes(picture + (2 + light[..., None]))
        distance = imagehash.phash(Image.fromarray(changed)) - original
        if 0 < distance <= NEAR_DISTANCE:
            return changed
    raise RuntimeError(f"no near duplicate of {class_name} {index} found")


def _smooth_noise(rng, spacing, size):
    """Return smooth noise (size, size), standard normal on a lattice of that spacing."""
    side = round(2 / spacing) + 1
    lattice = Image.fromarray(rng.standard_normal((side, side), dtype=np.float32))
    return np.asarray(lattice.resize((size, size), Image.Resampling.BICUBIC))


class _Smear:
    """A slide to paint on: `rgb` float (canvas, canvas, 3) and its warped coordinates.

    Shapes are ellipses and segments in coordinates that smooth noise has warped, so that
    outlines are as irregular as a cell's. `warp` says how far, `grain` is the spacing of the
    noise. A mask is float (canvas, canvas), from 0 outside to 1 inside.
    """

    def __init__(self, rng, warp, grain=0.3):
        self.rng = rng
        axis = (np.arange(_CANVAS, dtype=np.float32) + 0.5) / _CANVAS * 2 - 1
        self.x = axis[None, :] + warp * self.noise(grain)
        self.y = axis[:, None] + warp * self.noise(grain)
        cream = 1 - (rng.beta(1, 8) if rng.random() < 0.8 else rng.random())
        slide = cream * np.array(_CREAM) + (1 - cream) * np.array(_LILAC)
        self.rgb = (slide + 2 * self.noise(0.6)[..., None]).astype(np.float32)

    def noise(self, spacing):
        """Return smooth noise (canvas, canvas) about 0."""
        return _smooth_noise(self.rng, spacing, _CANVAS)

    def ellipse(self, x, y, radius, stretch=1.0, angle=0.0, soft=0.03):
        """Return the mask of an ellipse with the axes radius * stretch and radius / stretch."""
        # In single precision, as the coordinates: half the time.
        x, y, radius, stretch, angle, soft = np.float32([x, y, radius, stretch, angle, soft])
        dx, dy = self.x - x, self.y - y
        along = (np.cos(angle) * dx + np.sin(angle) * dy) / stretch
        across = (np.cos(angle) * dy - np.sin(angle) * dx) * stretch
        return np.clip((radius - np.hypot(along, across)) / soft + 0.5, 0, 1)

    def chain(self, points, radii, strand):
        """Return the mask of lobes at `points`, each joined to the next by a strand."""
        masks = [
            self.ellipse(x, y, radius, self.rng.uniform(0.9, 1.12), self.turn())
            for (x, y), radius in zip(points, radii, strict=True)
        ]
        for (x, y), (to_x, to_y) in zip(points, points[1:], strict=False):
            dx, dy = to_x - x, to_y - y
            along = ((self.x - x) * dx + (self.y - y) * dy) / (dx**2 + dy**2)
            along = np.clip(along, 0, 1)
            distance = np.hypot(self.x - x - along * dx, self.y - y - along * dy)
            masks.append(np.clip((strand - distance) / 0.03 + 0.5, 0, 1))
        return np.maximum.reduce(masks)

    def dots(self, mask, count, size):
        """Return the mask of `count` round dots of radius `size`, centred within `mask`."""
        weights = mask.ravel().astype(float)
        places = self.rng.choice(weights.size, int(count), p=weights / weights.sum())
        sigma = size * _CANVAS / 2
        heights = np.bincount(places, minlength=weights.size).reshape(mask.shape)
        blurred = gaussian_filter(heights.astype(np.float32), sigma, truncate=3)
        return np.clip(blurred * 2 * np.pi * sigma**2 * 1.6 - 0.3, 0, 1)

    def turn(self):
        """Draw an angle in radians."""
        return self.rng.uniform(0, 2 * np.pi)

    def paint(self, mask, colour, spread=0):
        """Cover with a colour (3,) where `mask` is 1. The colour varies by `spread`."""
        colour = np.asarray(colour) + self.rng.normal(0, spread, 3)
        self.rgb += mask[..., None] * (colour.astype(np.float32) - self.rgb)

    def red_cells(self, centre, clearance):
        """Paint red cells with their central pallor, none nearer to `centre` than allowed."""
        rng = self.rng
        radius = rng.uniform(0.33, 0.42)
        pallor = rng.uniform(0.3, 1)
        for _ in range(rng.integers(4, 13)):
            x, y = rng.uniform(-1.25, 1.25, 2)
            if np.hypot(x - centre[0], y - centre[1]) < clearance + radius * 0.8:
                continue
            size = radius * rng.uniform(0.85, 1.15)
            stretch, angle = rng.uniform(1, 1.2), self.turn()
            disc = self.ellipse(x, y, size, stretch, angle)
            self.paint(0.85 * disc, _RED_CELL, 4)
            pale = self.ellipse(x, y, size * 0.48, stretch, angle, soft=size * 0.4)
            self.paint(pallor * rng.uniform(0.6, 1) * pale, _PALLOR)

    def nucleus(self, mask, colour=_CHROMATIN, clumps=0.5):
        """Paint chromatin: dark at the rim, mottled with lighter clefts inside."""
        self.paint(mask, colour, 6)
        clefts = np.clip(self.noise(0.05) + 0.7 * self.noise(0.12), 0, 1.5) / 1.5
        inside = np.clip(gaussian_filter(mask, 2.5) * 2.5 - 1.4, 0, 1)
        self.paint(clumps * clefts * inside, (184, 136, 186), 8)


def _centre(rng):
    """Draw where the cell lies: mostly in the middle, sometimes cut off by the border."""
    if rng.random() < 0.1:
        side = rng.choice([-1, 1]) * rng.uniform(0.45, 0.75)
        return rng.permutation([side, rng.uniform(-0.3, 0.3)])
    return rng.normal(0, 0.09, 2)


def _arc(centre, radius, count, span, turn):
    """Return `count` points of an arc of `span` radians about the centre."""
    angles = turn + np.linspace(-span / 2, span / 2, count)
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _mix(colour, other, share):
    return (1 - share) * np.array(colour) + share * np.array(other)


def _finish(smear, image_size, rng):
    """Vary stain strength, hue and focus, resize, and add sensor noise."""
    # Stains absorb: their amount scales the optical density (Beer-Lambert).
    density = -np.log(np.clip(smear.rgb, 5, 255) / 255)
    strength = rng.uniform(0.8, 1.2) * rng.normal(1, 0.04, 3)
    rgb = 255 * np.exp(-density * strength)
    focus = rng.uniform(0.2, 1.2)
    rgb = gaussian_filter(rgb, (focus, focus, 0))
    reduced = Image.fromarray(_to_bytes(rgb)).resize((image_size, image_size))
    return _to_bytes(reduced + rng.normal(0, 2, (image_size, image_size, 3)))


def _to_bytes(rgb):
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _cell(rng, radius, warp=0.02, grain=0.3, spread=1.09):
    """Return a slide with red cells, the place for a cell, and the mask of that cell."""
    smear = _Smear(rng, warp, grain)
    centre = _centre(rng)
    smear.red_cells(centre, radius)
    body = smear.ellipse(*centre, radius, rng.uniform(1, spread), smear.turn())
    return smear, centre, body


def _basophil(rng):
    """Coarse blue-black granules all over, which hide the nucleus."""
    radius = rng.uniform(0.45, 0.64)
    smear, centre, body = _cell(rng, radius, warp=0.03)
    if rng.random() < 0.4:  # spilt granules stain the surroundings
        halo = smear.ellipse(*centre, radius * 1.25, 1.1, smear.turn(), soft=0.3)
        smear.paint(0.5 * halo, (240, 190, 215))
    smear.paint(body, (196, 150, 196), 10)
    lobes = _arc(centre, radius * 0.35, rng.integers(2, 4), 2.6, smear.turn())
    nucleus = smear.chain(lobes, [radius * 0.5] * len(lobes), radius * 0.3)
    smear.nucleus(nucleus * body, (104, 58, 150))
    for colour in ((104, 40, 140), (58, 20, 114)):
        granules = smear.dots(body, rng.uniform(300, 800) * radius**2, 0.024)
        smear.paint(granules, colour, 8)
    return smear


def _eosinophil(rng):
    """Two lobes, and large orange-red granules that fill the cytoplasm."""
    radius = rng.uniform(0.52, 0.68)
    smear, centre, body = _cell(rng, radius)
    smear.paint(body, (228, 186, 182), 8)
    stain = _mix((198, 92, 84), (190, 116, 122), rng.random())
    for colour in (stain, stain + 22):
        granules = smear.dots(body, rng.uniform(150, 400), 0.026)
        smear.paint(granules, colour, 4)
    count = rng.choice([2, 3], p=[0.8, 0.2])
    lobes = _arc(
        centre + rng.normal(0, 0.06, 2),
        radius * 0.46,
        count,
        rng.uniform(1.6, 2.6),
        smear.turn(),
    )
    lobes = smear.chain(lobes, radius * rng.uniform(0.34, 0.46, count), 0.05)
    smear.nucleus(lobes)
    return smear


def _erythroblast(rng):
    """A small cell: round, nearly black nucleus, greyish pink to blue cytoplasm."""
    radius = rng.uniform(0.34, 0.5)
    smear, centre, body = _cell(rng, radius, warp=0.025)
    smear.paint(body, _mix((198, 170, 184), (122, 116, 172), rng.beta(1, 2)), 8)
    share = rng.uniform(0.5, 0.76)
    offset = rng.uniform(0, 0.9) * (1 - share) * radius
    nucleus = _arc(centre, offset, 1, 0, smear.turn())[0]
    nucleus = smear.ellipse(*nucleus, radius * share, rng.uniform(1, 1.1), smear.turn())
    smear.nucleus(nucleus, (52, 20, 96), clumps=rng.uniform(0, 0.7))
    return smear


def _ig(rng):
    """Immature granulocyte: large, the nucleus round to indented and off the centre.

    From promyelocyte (blue, many granules) to metamyelocyte (pink, kidney-shaped).
    """
    age = rng.random()
    radius = rng.uniform(0.52, 0.72)
    smear, centre, body = _cell(rng, radius)
    smear.paint(body, _mix((150, 132, 192), (222, 188, 200), age), 8)
    share = rng.uniform(0.66, 0.82) - 0.1 * age
    turn = smear.turn()
    offset = rng.uniform(0.7, 1) * (1 - share) * radius
    nucleus = _arc(centre, offset, 1, 0, turn)[0]
    shape = smear.ellipse(*nucleus, radius * share, rng.uniform(1.05, 1.2), turn + 1.57)
    # The dent faces the middle of the cell.
    dent = _arc(nucleus, -radius * share, 1, 0, turn)[0]
    shape *= 1 - smear.ellipse(*dent, radius * share * 0.7 * age, soft=0.08)
    smear.nucleus(shape, (92, 44, 144))
    granules = smear.dots(body, rng.uniform(100, 600) * (1.2 - age), 0.012)
    smear.paint(0.8 * granules, (112, 40, 138), 8)
    return smear


def _lymphocyte(rng):
    """Small: a round, dense nucleus that leaves a thin rim of blue cytoplasm."""
    radius = rng.uniform(0.38, 0.54)
    smear, centre, body = _cell(rng, radius, warp=0.018, grain=0.12)
    smear.paint(body, (134, 130, 188), 7)
    share = rng.uniform(0.78, 0.94)
    offset = (1 - share) * radius
    nucleus = _arc(centre, offset, 1, 0, smear.turn())[0]
    shape = smear.ellipse(*nucleus, radius * share, rng.uniform(1, 1.08), smear.turn())
    smear.nucleus(shape, (72, 32, 122), clumps=rng.uniform(0.2, 0.6))
    return smear


def _monocyte(rng):
    """The largest: kidney or horseshoe, grey-blue cytoplasm, vacuoles, ragged edge."""
    radius = rng.uniform(0.6, 0.8)
    smear, centre, body = _cell(rng, radius, rng.uniform(0.03, 0.07), spread=1.2)
    smear.paint(body, (172, 162, 200), 8)
    smear.paint(0.5 * np.clip(smear.noise(0.04), 0, 1) * body, (132, 122, 180))
    lobe = radius * rng.uniform(0.32, 0.48)
    points = _arc(centre, radius * 0.38, 7, rng.uniform(2, 4.2), smear.turn()) + rng.normal(
        0, 0.06, 2
    )
    nucleus = smear.chain(points, [lobe] * len(points), lobe) * body
    smear.nucleus(nucleus, (106, 58, 148), clumps=0.6)
    vacuoles = smear.dots(body, rng.integers(1, 12), rng.uniform(0.03, 0.06))
    smear.paint(0.85 * vacuoles, (242, 228, 226))
    return smear


def _neutrophil(rng):
    """Three to five lobes on thin strands, or a band; pale pink, faint granules."""
    radius = rng.uniform(0.48, 0.66)
    smear, centre, body = _cell(rng, radius)
    smear.paint(body, (228, 198, 198), 5)
    granules = smear.dots(body, rng.uniform(150, 600), 0.01)
    smear.paint(rng.uniform(0.3, 0.7) * granules, (178, 112, 164), 8)
    count = rng.integers(3, 6)
    band = rng.random() < 0.15
    points = _arc(centre, radius * 0.5, count, rng.uniform(3, 4.6), smear.turn()) + rng.normal(
        0, 0.03, (count, 2)
    )
    lobes = radius * rng.uniform(0.26, 0.37, count)
    smear.nucleus(smear.chain(points, lobes, 0.15 if band else 0.035), (70, 26, 122))
    return smear


def _platelet(rng):
    """One to three tiny granular fragments among the red cells, without a nucleus."""
    radius = rng.uniform(0.13, 0.24) * rng.choice([1, 1.6], p=[0.92, 0.08])
    smear = _Smear(rng, warp=0.012, grain=0.1)
    centre = _centre(rng)
    smear.red_cells(centre, radius)
    places = [centre, *rng.uniform(-0.9, 0.9, (rng.choice([0, 0, 0, 1, 2]), 2))]
    for place, share in zip(places, (1, 0.7, 0.5), strict=False):
        size = radius * share
        body = smear.ellipse(*place, size, rng.uniform(1, 1.2), smear.turn(), soft=0.06)
        smear.paint(body, (202, 172, 206), 8)
        inner = smear.ellipse(*place, size * 0.85, soft=size * 0.6)
        granules = smear.dots(inner, rng.uniform(50, 110) * share, 0.02)
        smear.paint(0.9 * granules, (112, 52, 150), 8)
    return smear


_CELLS = {
    "basophil": _basophil,
    "eosinophil": _eosinophil,
    "erythroblast": _erythroblast,
    "ig": _ig,
    "lymphocyte": _lymphocyte,
    "monocyte": _monocyte,
    "neutrophil": _neutrophil,
    "platelet": _platelet,
}


def _draw_artefact(image_size, rng):
    """Draw no cell, but the black edge of the field of view and two fibres across it."""
    smear = _Smear(rng, warp=0.02)
    smear.paint(smear.ellipse(2.2, 1.4, 1.9, soft=0.1), (22, 20, 26))
    for _ in range(2):
        ends = rng.uniform(-1, 1, (2, 2))
        smear.paint(smear.chain(ends, [0.05, 0.05], 0.04), (90, 116, 96))
    return _finish(smear, image_size, rng)
