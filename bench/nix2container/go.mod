module nix2container-push

go 1.25.0

require (
	github.com/google/go-containerregistry v0.22.1
	github.com/nlewo/nix2container v0.0.0
)
