"""What to do about an error, by its code: one short sentence for the summary and for `status`."""

from __future__ import annotations

from enroll.model import Credentials, Status

_REMEDIES = {
    # the service's
    "NO_FACE_FOUND": "Take a photo with the face clear and upright, or try "
    "--multi-oriented-detection.",
    "IMAGE_ERROR_UNSUPPORTED_FORMAT": "Export the photo as JPEG, PNG or BMP.",
    "INVALID_IMAGE_SIZE": "Resize the photo to between 48 and 4,096 pixels a side.",
    "IMAGE_FILE_TOO_LARGE": "Export the photo below 2 MB.",
    "COEXISTENCE_ARGUMENTS": "A bug in enroll; report it.",
    "INVALID_FACE_TOKEN": "Report it.",
    "NOT_EMPTY": "Report it.",
    "BAD_ARGUMENTS": "Correct the field that the message names.",
    "MISSING_ARGUMENTS": "Correct the field that the message names.",
    "AUTHORIZATION_ERROR": "Check the credentials that were used, and this machine's clock.",
    "AUTHENTICATION_ERROR": "Check the credentials that were used, and this machine's clock.",
    "INVALID_OUTER_ID": "Check --group-id; `enroll library list` shows the account's libraries.",
    "INVALID_GROUP_ID": "Check --group-id; `enroll library list` shows the account's libraries.",
    "API_NOT_FOUND": "Check --endpoint.",
    "CONCURRENCY_LIMIT_EXCEEDED": "Leave --max-in-flight at auto.",
    # an answer without a code of the service's
    "HTTP_401": "Check the credentials that were used, and --endpoint.",
    "HTTP_413": "Export the photo below 2 MB.",
    "HTTP_429": "Leave --max-in-flight at auto.",
    # on the way
    "NAME_LOOKUP_FAILED": "Check --endpoint and the network.",
    "CANNOT_CONNECT": "Check --endpoint and the network.",
    "CLOCKS_APART": "Set the clock that is wrong: signatures carry the time, so nothing is sent.",
    "PROXY_REFUSED": "Check HTTPS_PROXY.",
    "TLS_FAILED": "Check --endpoint and --ca-bundle.",
    "OUT_OF_RESOURCES": "Raise the limit of open files or threads (ulimit -n, ulimit -u).",
    "FIELD_MISSING": "Check --endpoint.",
    # this machine's
    "PHOTO_MISSING": "Check the path in the manifest, and --images.",
    "PHOTO_AMBIGUOUS": "Remove all but one of the photos, or make --photo more exact.",
    "PHOTO_UNREADABLE": "Check the file's permissions and disk, or the store's answer.",
    "PHOTO_WORKERS_LOST": "Export the photo again as a plain JPEG, or give the workers more "
    "memory; their logs say why they ended.",
    "PHOTO_CHANGED": "Run again when no program is writing the photo.",
    "PHOTO_OUTSIDE": "Correct the path, or name the folder of the photos with --images.",
    "PHOTO_SYMLINK": "Replace the link with the file itself.",
    "PHOTO_NOT_A_FILE": "Name a photo, not a folder or device.",
    "PHOTO_NOT_BASE64": "Export the list again, with the whole photo as Base64.",
    "PHOTO_EMPTY": "Export the photo again.",
    "PHOTO_TOO_LARGE": "Export the photo in a smaller size.",
    "PHOTO_TOO_MANY_PIXELS": "Export the photo in a smaller size, or raise --max-pixels.",
    "PHOTO_TOO_SMALL": "Use a photo of at least 48 pixels a side.",
    "PHOTO_NOT_AN_IMAGE": "Export the photo again.",
    "PHOTO_TRUNCATED": "Copy the file again from its source. --accept-truncated sends what there "
    "is of a JPEG, PNG, BMP, GIF or TIFF.",
    "PHOTO_DAMAGED": "Copy or export the photo again.",
    "PHOTO_TOO_SLOW": "Export the photo as a plain JPEG.",
    "PHOTO_FORMAT": "Export the photo as JPEG, PNG or BMP; for HEIC install the extra heif.",
    "PHOTO_NO_FACE": "Use a photo that shows the face from the front and not too small, or "
    "--precheck warn.",
    "PHOTO_SEVERAL_FACES": "Crop the photo to the right person, or use --precheck warn.",
    "PHOTO_SMALL_FACE": "Use a larger or closer photo, or a lower --min-face.",
    "PHOTO_CUT_FACE": "Use a photo that shows the whole head, or --precheck warn.",
    "PHOTO_TILTED_FACE": "Turn the photo until the head is upright, or use --precheck warn.",
    "PHOTO_DARK_FACE": "Brighten the photo or take one with more light, or use --precheck warn.",
    "PHOTO_BRIGHT_FACE": "Use a photo with less light on the face, or --precheck warn.",
    "PHOTO_BLURRED_FACE": "Use a sharp photo, or --precheck warn.",
    "LOOKALIKE": "Correct the list or the photo. If the other id was wrong and is removed, and for "
    "two people who look alike: `enroll audit --accept ID1,ID2`.",
    "UNLIKE_BEFORE": "Correct the photo, and the other person's if they were swapped. If it is "
    "right: `enroll audit --accept ID1,ID2`.",
    "SEARCH_FAILED": "Run again. --lookalikes warn adds such rows without the search.",
    "USER_ID_EMPTY": "Fill the cell.",
    "USER_ID_TOO_LONG": "Use at most 48 bytes.",
    "USER_ID_CHARACTER": "Use only letters, digits and -%@#&_.",
    "USER_ID_ROUNDED": "Enter or import the ids as text, then export the list again.",
    "USER_DATA_TOO_LONG": "Use at most 128 characters.",
    "USER_DATA_CHARACTER": "Remove the character that the message names.",
    "IMAGE_EMPTY": "Fill the cell.",
    "PATH_NOT_MATCHED": "Rename the photo, or describe its path with --id-from.",
    "IMAGE_TOO_LONG": "Write the photo's path there, not the photo itself, and no longer than a "
    "file's path may be.",
    "IMAGE_CHARACTER": "Correct the path, or rename the file.",
    "FORGOTTEN": "Nothing: the person was forgotten. `enroll forget --readmit` allows enrolling "
    "them again.",
    "WAITS_FOR_DOUBT": "Nothing: the row continues when the other photo of this person is settled.",
}


_SENTENCES = {
    "NO_FACE_FOUND": "The service finds no face in the photo",
    "IMAGE_ERROR_UNSUPPORTED_FORMAT": "The service cannot read the photo as a picture",
    "INVALID_IMAGE_SIZE": "The photo has too many or too few pixels for the service",
    "IMAGE_FILE_TOO_LARGE": "The photo has too many bytes for the service",
    "BAD_ARGUMENTS": "A field of the call breaks a rule of the service",
    "MISSING_ARGUMENTS": "A field is missing in the call",
    "COEXISTENCE_ARGUMENTS": "The call has two fields that exclude each other",
    "INVALID_FACE_TOKEN": "The service knows no face with this token",
    "NOT_EMPTY": "The library holds faces",
    "AUTHENTICATION_ERROR": "The service does not accept key or signature",
    "AUTHORIZATION_ERROR": "The service does not accept key or signature, or does not allow the "
    "call",
    "INVALID_OUTER_ID": "The account has no such library",
    "INVALID_GROUP_ID": "The account has no such library",
    "API_NOT_FOUND": "The service has no such call at this address",
    "CONCURRENCY_LIMIT_EXCEEDED": "The service had no place for the call",
}
"""What the service's codes mean, for answers with no text or with a detail only."""
_OTHER_THAN_THE_SERVICE = frozenset({"NOT_HTTP", "NOT_JSON", "BODY_TOO_LARGE", "HTTP_2"})
"""Codes of answers that do not seem to come from the service; after an `add` they prove nothing, so
the row is in doubt."""

_IN_DOUBT = (
    "Run again: the library is checked before anything is sent. `enroll resolve` decides by hand."
)
_DOUBTFUL = frozenset(
    {
        "TIMEOUT",
        "CONNECTION_LOST",
        "WORKER_LOST",
        "NOT_HTTP",
        "BODY_CUT_OFF",
        "BODY_TOO_LARGE",
        "NOT_JSON",
        "NO_FACE_TOKEN",
        "TOKEN_REPEATED",
        "INTERRUPTED",
        "INTERNAL_ERROR",
        "UNKNOWN_FACE",
    }
)


_FAMILIES = {
    "HTTP_2": _IN_DOUBT,
    "HTTP_3": "Check --endpoint.",
    "HTTP_4": "Ask whoever runs the proxy or firewall; run again.",
    "HTTP_5": _IN_DOUBT,
}
"""Remedies for statuses without a code of the service and without a remedy of their own."""

UNKNOWN_CODE = (
    "A code that enroll does not know: see the answer in `enroll status`, then decide with "
    "--on-code."
)
"""The remedy for a code that enroll does not know."""


_CREDENTIALS = "the credentials that were used"


def remedy(code: str, *, used: Credentials | None = None) -> str:
    """What to do about a code; empty if only the message can say. `used` are the credentials that
    the call was signed with; a remedy that says to check them names them."""
    if code in _DOUBTFUL:
        return _IN_DOUBT
    found = _REMEDIES.get(code) or _FAMILIES.get(code[: len("HTTP_2")], "")
    if used is None:
        return found
    return found.replace(_CREDENTIALS, f"{_CREDENTIALS}, {used.described}")


def sentence(code: str, status: str, message: str) -> str:
    """The message of a row that ended like this: for a code of the service its meaning, with the
    detail that came with it; for anything else the service's own text.

    In doubt a code proves nothing, but its sentence would claim that it does.
    """
    meaning = _SENTENCES.get(code)
    said, colon, detail = message.partition(":")
    if meaning is None or said.strip() not in ("", code) or status == Status.IN_DOUBT:
        return message
    detail = detail.strip() if colon else ""
    return f"{meaning}: {detail}" if detail else f"{meaning}."


def call_remedy(code: str, *, used: Credentials | None = None) -> str:
    """As `remedy`, for a call that adds no face: it leaves no row in doubt."""
    family = code[: len("HTTP_2")]
    if code in _OTHER_THAN_THE_SERVICE or family in _OTHER_THAN_THE_SERVICE:
        return "Check --endpoint: what answers there does not seem to be the service."
    if code in _DOUBTFUL or family == "HTTP_5":
        return "Check the network, and whether the service is up."
    return remedy(code, used=used)


def what_to_do(code: str, status: str, message: str) -> str:
    """What to do about rows that ended like this; for an unknown code with the service's own text.

    In doubt a code proves nothing, so its remedy would not help.
    """
    if status == Status.IN_DOUBT:
        return _IN_DOUBT
    said = f" It said: {message}" if message not in ("", code) else ""
    return remedy(code) or f"{UNKNOWN_CODE}{said}"
