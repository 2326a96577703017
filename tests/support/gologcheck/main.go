// Command gologcheck verifies log entries and consistency proofs with Rekor v2's own verifier.
//
// It reads one JSON object a line and answers each with "ok" or with what is wrong.
package main

import (
	"bufio"
	"crypto"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	pbs "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/rekor-tiles/v2/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	sumdb "golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"
)

type question struct {
	Origin string          `json:"origin"`
	Key    string          `json:"key"`
	Entry  json.RawMessage `json:"entry"`
	Old    string          `json:"old"`
	New    string          `json:"new"`
	Hashes [][]byte        `json:"hashes"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		if err := answer(lines.Bytes()); err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok")
		}
	}
}

func answer(line []byte) error {
	var q question
	if err := json.Unmarshal(line, &q); err != nil {
		return err
	}
	key, err := verifier(q.Origin, q.Key)
	if err != nil {
		return err
	}
	if q.Entry == nil {
		return verify.VerifyConsistencyProofWithCheckpoints(q.Hashes, q.Old, q.New, key)
	}
	var entry pbs.TransparencyLogEntry
	if err := protojson.Unmarshal(q.Entry, &entry); err != nil {
		return err
	}
	return verify.VerifyLogEntry(&entry, key)
}

func verifier(origin, pem string) (sumdb.Verifier, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(pem))
	if err != nil {
		return nil, err
	}
	loaded, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return note.NewNoteVerifier(origin, loaded)
}
