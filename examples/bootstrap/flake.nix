# A full-source bootstrap, as small as one can be: the only binary that is executed and was not built
# here is hex0-seed, 283 bytes that anyone can compare with the commented hexadecimal in hex0.hex.
#
# No shell, no library, no input: each stage is the builder of the next, in Nix's sandbox.
{
  description = "From 283 bytes of machine code to a built text";

  outputs =
    { self }:
    let
      system = "x86_64-linux";
      # Run `builder SOURCE $out`; with no shell, Nix itself puts the output's path in.
      assemble =
        builder: name: source:
        derivation {
          inherit name system builder;
          args = [
            source
            (builtins.placeholder "out")
          ];
        };
    in
    {
      packages.${system} = rec {
        # The assembler, assembled from its own source by the seed: the same bytes again.
        hex0 = assemble ./hex0-seed "hex0" ./hex0.hex;
        # An assembler that knows labels.
        hex1 = assemble hex0 "hex1" ./hex1.hex;
        # A program that uses them.
        greet = assemble hex1 "greet" ./greet.hex1;
        # What that program writes.
        greeting = derivation {
          name = "greeting";
          inherit system;
          builder = greet;
          args = [ (builtins.placeholder "out") ];
        };
        default = greeting;
      };
    };
}
