/**
 * The shapes of the admin API, derived from what the engine gives: bigints are decimal strings, bytes are base64, times
 * stay what they are in the library. What the typed client shows is these types.
 *
 * `shapeOf` ties a schema to its type: it does not compile unless the schema describes exactly that type.
 */
import type { Static, TSchema, TUnsafe } from "typebox";

/** `T` as JSON carries it. */
export type Wire<T> = T extends bigint | Uint8Array
  ? string
  : T extends string | number | boolean | null | undefined
    ? T
    : T extends readonly (infer Item)[]
      ? readonly Wire<Item>[]
      : { readonly [Name in keyof T]: Wire<T[Name]> };

/** `T` without `readonly`, for comparing. */
type Plain<T> = T extends readonly (infer Item)[]
  ? Plain<Item>[]
  : T extends object
    ? { -readonly [Name in keyof T]: Plain<T[Name]> }
    : T;

type Fits<A, B> = [Plain<A>] extends [Plain<B>] ? true : false;
type SameKeys<A, B> = [keyof A] extends [keyof B] ? ([keyof B] extends [keyof A] ? true : false) : false;
type Same<A, B> = [A] extends [readonly unknown[]]
  ? Fits<A, B>
  : [Fits<A, B>, Fits<B, A>, SameKeys<Plain<A>, Plain<B>>] extends [true, true, true]
    ? true
    : false;

/** A schema that is known to describe `T`. */
export type Shape<T> = TUnsafe<T>;

/** The schema, as one that describes `T`; does not compile for a schema that describes anything else. */
export function shapeOf<T>(): <S extends TSchema>(
  schema: Same<Static<S>, T> extends true ? S : never,
) => Shape<T> {
  return (schema) => schema as unknown as Shape<T>;
}
