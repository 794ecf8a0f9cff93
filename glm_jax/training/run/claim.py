"""An object in a bucket that is written only where nobody else has written it meanwhile.

    claim.write(b"mine", None)           generation 17, or FileExistsError where there is one
    claim.write(b"still mine", 17)       generation 18, or FileExistsError where it is not 17 now

The bucket itself compares the generation and writes, in one step: of several who try, one succeeds.
gcsfs can create so, but not replace; Google's own client, which gcsfs requires, can.
"""

from typing import TYPE_CHECKING

from glm_jax.buckets import BucketPath, as_os_errors

if TYPE_CHECKING:
    from google.cloud.storage import Blob


class Claim:
    """The object; methods raise `OSError`s as those of `BucketPath`."""

    def __init__(self, path: BucketPath):
        """Finds credentials; asks nothing of the bucket."""
        path.exists()  # where the bucket or gcsfs is missing, this says so
        self._path = path
        with as_os_errors(str(path)):
            from google.cloud import storage

            self._bucket = storage.Client().bucket(path.bucket)

    def _blob(self) -> "Blob":
        return self._bucket.blob(self._path.key)

    def read(self) -> tuple[bytes, int] | None:
        """Content and generation; None where there is no such object."""
        try:
            with as_os_errors(str(self._path)):
                blob = self._bucket.get_blob(self._path.key)
                if blob is None:
                    return None
                return blob.download_as_bytes(if_generation_match=blob.generation), blob.generation
        except (FileNotFoundError, FileExistsError):  # removed or replaced between the two
            return None

    def write(self, content: bytes, generation: int | None) -> int:
        """Writes if the object has this generation, or if there is none (None).

        Returns:
          The new generation.

        Raises:
          FileExistsError: somebody else has written it.
        """
        blob = self._blob()
        try:
            with as_os_errors(str(self._path)):
                blob.upload_from_string(content, if_generation_match=generation or 0)
        except FileExistsError:
            # An answer may be lost on its way, and the client asks again: it may be ours.
            found = self.read()
            if found is None or found[0] != content:
                raise
            return found[1]
        return int(blob.generation)

    def remove(self, generation: int) -> None:
        """Removes the object if it still has this generation."""
        found = self.read()
        if found is None or found[1] != generation:
            return
        try:
            with as_os_errors(str(self._path)):
                self._blob().delete(if_generation_match=generation)
        except (FileNotFoundError, FileExistsError):
            pass
