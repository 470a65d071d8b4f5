"""What to do about an error, by its code: one short sentence for the summary and for `status`."""

from __future__ import annotations

_REMEDIES = {
    # the service's
    "NO_FACE_FOUND": "Take a photo with the face clear and upright, or try "
    "--multi-oriented-detection.",
    "IMAGE_ERROR_UNSUPPORTED_FORMAT": "Export the photo as JPEG, PNG or BMP.",
    "INVALID_IMAGE_SIZE": "Resize the photo to between 48 and 4,096 pixels a side.",
    "IMAGE_FILE_TOO_LARGE": "Export the photo below 2 MB.",
    "HTTP_413": "Export the photo below 2 MB.",
    "BAD_ARGUMENTS": "Correct the field that the message names.",
    "MISSING_ARGUMENTS": "Correct the field that the message names.",
    "AUTHORIZATION_ERROR": "Check ENROLL_API_KEY and ENROLL_API_SECRET, and this machine's clock.",
    "AUTHENTICATION_ERROR": "Check ENROLL_API_KEY and ENROLL_API_SECRET, and this machine's clock.",
    "INVALID_OUTER_ID": "Check --group-id; `enroll library list` shows the account's libraries.",
    "INVALID_GROUP_ID": "Check --group-id; `enroll library list` shows the account's libraries.",
    "API_NOT_FOUND": "Check --endpoint.",
    "CONCURRENCY_LIMIT_EXCEEDED": "Lower --max-in-flight.",
    # this machine's
    "PHOTO_MISSING": "Check the path in the manifest, and --images.",
    "PHOTO_UNREADABLE": "Check the file's permissions and its disk.",
    "PHOTO_CHANGED": "Run again when nothing writes the photo any more.",
    "PHOTO_OUTSIDE": "Correct the path, or name the folder of the photos with --images.",
    "PHOTO_SYMLINK": "Put the file itself there.",
    "PHOTO_NOT_A_FILE": "Name a photo, not a folder or device.",
    "PHOTO_EMPTY": "Export the photo again.",
    "PHOTO_TOO_LARGE": "Export the photo in a smaller size.",
    "PHOTO_NOT_AN_IMAGE": "Export the photo again.",
    "PHOTO_TRUNCATED": "Copy the file again from where it came.",
    "PHOTO_FORMAT": "Export the photo as JPEG, PNG or BMP.",
    "USER_ID_EMPTY": "Fill the cell.",
    "USER_ID_TOO_LONG": "Use at most 48 bytes.",
    "USER_ID_CHARACTER": "Use only letters, digits and -%@#&_.",
    "USER_DATA_TOO_LONG": "Use at most 128 characters.",
    "USER_DATA_CHARACTER": "Take the character out that the message names.",
    "IMAGE_EMPTY": "Fill the cell.",
    "WAITS_FOR_DOUBT": "Nothing: it goes on when the other photo of this person is settled.",
}


def remedy(code: str) -> str:
    """What to do about a code; empty where only the message can tell."""
    return _REMEDIES.get(code, "")
