"""From the source that the config names to one array of images and one table."""

from hemagrid import bloodmnist, sources


def acquire(settings, source, out):
    """Write `out["images"]` and `out["samples"]` from `source`, a file or a folder.

    `settings` holds `source` (npz, folder, smears, bloodmnist), `classes`, `image_size`
    and `strict`. BloodMNIST also fills `out["external_images"]` and
    `out["external_table"]`. Raises InputError on bad input.
    """
    shape = {key: settings[key] for key in ("classes", "image_size")}
    targets = (out["images"], out["samples"])
    if settings["source"] == "npz":
        sources.from_npz(source, *targets, **shape)
    elif settings["source"] == "bloodmnist":
        external = (out["external_images"], out["external_table"])
        bloodmnist.from_bloodmnist(source, *targets, *external, **shape)
    else:
        sources.from_folder(source, *targets, **shape, strict=settings["strict"])
