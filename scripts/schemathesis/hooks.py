"""What schemathesis is told beyond the document: requests name the model that is served, or all would end at its name."""

import os

import schemathesis


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for schema in raw_schema["components"]["schemas"].values():
        fields = schema.get("properties", {})
        # Requests alone: what is answered has other names in it too.
        if "model" in fields and schema.get("additionalProperties") is False:
            fields["model"] = {"type": "string", "enum": [os.environ["SERVED_MODEL"]]}
