/** The schema of typed values. Apart from what converts them: the command line does, and needs no library of schemas. */
import { Type } from "typebox";
import type { TypedValue } from "./typed-value.ts";
import { type Shape, shapeOf } from "./wire.ts";

const CLOSED = { additionalProperties: false } as const;

export const TypedValueSchema: Shape<TypedValue> = shapeOf<TypedValue>()(
  Type.Union([
    Type.Object({ type: Type.Literal("null") }, CLOSED),
    Type.Object(
      { type: Type.Literal("integer"), value: Type.String({ pattern: "^-?[0-9]{1,19}$" }) },
      CLOSED,
    ),
    Type.Object(
      {
        type: Type.Literal("float"),
        value: Type.Union([Type.Number(), Type.Literal("Infinity"), Type.Literal("-Infinity")]),
      },
      CLOSED,
    ),
    Type.Object({ type: Type.Literal("text"), value: Type.String() }, CLOSED),
    Type.Object(
      { type: Type.Literal("blob"), base64: Type.String({ pattern: "^[A-Za-z0-9+/]*={0,2}$" }) },
      CLOSED,
    ),
  ]),
);
