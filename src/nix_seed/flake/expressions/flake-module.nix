# A module of flake-parts: packages.seed of every system, by options of the module system.
{ mkSeed }:
{
  lib,
  self,
  flake-parts-lib,
  ...
}:
{
  options.perSystem = flake-parts-lib.mkPerSystemOption (
    { config, system, ... }:
    {
      options.seed = lib.mkOption {
        type = lib.types.lazyAttrsOf lib.types.raw;
        default = { };
        description = "Arguments of mkSeed besides self and system.";
      };
      config.packages.seed = mkSeed ({ inherit self system; } // config.seed);
    }
  );
}
