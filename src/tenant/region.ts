/** Names of the places where a tenant's bytes may be. */
import { kimberliteError } from "../errors.ts";

declare const regionBrand: unique symbol;

/** A region's name: lower-case words joined by hyphens, such as `us-east`; 1 to 63 characters. */
export type Region = string & { readonly [regionBrand]: true };

function parseRegion(name: string): Region {
  if (typeof name !== "string" || !/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(name) || name.length > 63) {
    throw kimberliteError("invalid_argument", "a region is 1 to 63 lower-case letters, digits and hyphens");
  }
  return name as Region;
}

/** Well-known regions, and `Region.of` for any other. */
export const Region: {
  readonly UsEast: Region;
  readonly UsWest: Region;
  readonly EuWest: Region;
  readonly EuCentral: Region;
  readonly ApSoutheast: Region;
  readonly ApNortheast: Region;
  /** @throws `invalid_argument` for a name that is not a region's. */
  of(name: string): Region;
} = Object.freeze({
  UsEast: parseRegion("us-east"),
  UsWest: parseRegion("us-west"),
  EuWest: parseRegion("eu-west"),
  EuCentral: parseRegion("eu-central"),
  ApSoutheast: parseRegion("ap-southeast"),
  ApNortheast: parseRegion("ap-northeast"),
  of: parseRegion,
});
