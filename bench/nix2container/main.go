// Command push sends an image that nix2container has planned (its image.json) to a registry.
//
// nix2container leaves that to a patched skopeo. Here its own library makes the layers, and
// go-containerregistry compresses them (gzip, its fastest level) and sends four at once, none of
// them touching the disk. Layers sent before are remembered in a file and not read again, as
// skopeo's cache of digests does.
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"os"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	gcr "github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/nlewo/nix2container/nix"
	"github.com/nlewo/nix2container/types"
)

const atOnce = 4

type sent struct {
	Digest v1.Hash
	Size   int64
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func push(repo name.Repository, layer types.Layer) (sent, error) {
	blob, _, err := nix.LayerGetBlob(layer)
	if err != nil {
		return sent{}, err
	}
	made := stream.NewLayer(blob)
	if err := remote.WriteLayer(repo, made); err != nil {
		return sent{}, err
	}
	digest, err := made.Digest()
	if err != nil {
		return sent{}, err
	}
	size, err := made.Size()
	return sent{digest, size}, err
}

func manifest(image types.Image, known map[string]sent, config []byte) []byte {
	digest, size, err := v1.SHA256(bytes.NewReader(config))
	check(err)
	made := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     gcr.OCIManifestSchema1,
		Config:        v1.Descriptor{MediaType: gcr.OCIConfigJSON, Size: size, Digest: digest},
	}
	for _, layer := range image.Layers {
		one := known[layer.DiffIDs]
		made.Layers = append(made.Layers,
			v1.Descriptor{MediaType: gcr.OCILayer, Size: one.Size, Digest: one.Digest})
	}
	body, err := json.Marshal(made)
	check(err)
	return body
}

type raw []byte

func (r raw) RawManifest() ([]byte, error)      { return r, nil }
func (r raw) MediaType() (gcr.MediaType, error) { return gcr.OCIManifestSchema1, nil }

func main() {
	planned, target, remembered := os.Args[1], os.Args[2], os.Args[3]
	image, err := nix.NewImageFromFile(planned)
	check(err)
	tag, err := name.NewTag(target)
	check(err)
	known := map[string]sent{}
	if file, err := os.Open(remembered); err == nil {
		body, err := io.ReadAll(file)
		check(err)
		check(json.Unmarshal(body, &known))
	}
	var all sync.WaitGroup
	var lock sync.Mutex
	places := make(chan struct{}, atOnce)
	for _, layer := range image.Layers {
		if _, there := known[layer.DiffIDs]; there {
			continue
		}
		all.Add(1)
		go func() {
			defer all.Done()
			places <- struct{}{}
			one, err := push(tag.Context(), layer)
			check(err)
			<-places
			lock.Lock()
			known[layer.DiffIDs] = one
			lock.Unlock()
		}()
	}
	all.Wait()
	config, err := nix.GetConfigBlob(image)
	check(err)
	check(remote.WriteLayer(tag.Context(), static.NewLayer(config, gcr.OCIConfigJSON)))
	check(remote.Put(tag, raw(manifest(image, known, config))))
	body, err := json.Marshal(known)
	check(err)
	check(os.WriteFile(remembered, body, 0o644))
}
