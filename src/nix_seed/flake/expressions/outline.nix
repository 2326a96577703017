# An outline is data; this makes it a derivation too, so that `nix flake check` and `nix build`
# treat a seed like any other package. The command reads the attribute `nixSeed`.
{ name, system, pkgs, outline, values, exclusion }:
derivation
  {
    name = "${name}-outline.json";
    inherit system;
    builder = "${pkgs.bash}/bin/bash";
    args = [ "-c" "printf '%s\\n' \"$(<\"$outlinePath\")\" > \"$out\"" ];
    # Of the project only names: to build the outline is not to build the project.
    outline = builtins.unsafeDiscardStringContext (builtins.toJSON outline);
    passAsFile = [ "outline" ];
  } // {
  nixSeed = outline;
  # Not data either: what it leaves out, and the same image without some more outputs.
  nixSeedExclusion = exclusion;
  # Where licences are looked for: derivations, which no outline can hold.
  nixSeedValues = { inherit pkgs; roots = values; };
  meta.description = "Outline of the ${outline.kind} image; build it with nix-seed build --attr";
}
