package identity

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// The refusals of Load and Open. The returned errors wrap them and say what to do.
var (
	// ErrExposed: others than the owner may read the file.
	ErrExposed = errors.New("identity: the file can be read by others")
	// ErrCorrupt: the content is not a key file, or was changed.
	ErrCorrupt = errors.New("identity: the key file is damaged")
	// ErrSealed: the file is sealed with a passphrase and must go through Open.
	ErrSealed = errors.New("identity: the key file is sealed with a passphrase")
)

// A key file is one PEM block (RFC 1421, section 4.4) and nothing else:
//
//	-----BEGIN BALAI PRIVATE KEY-----
//	Peer: <peer id>
//	Version: 1
//
//	<base64 of the 32-byte Ed25519 seed>
//	-----END BALAI PRIVATE KEY-----
//
// One that Seal wrote says SEALED KEY in place of PRIVATE KEY and holds salt 16 | nonce 24 | sealed seed 48. testdata
// has one of each.
const (
	plainType  = "BALAI PRIVATE KEY"
	sealedType = "BALAI SEALED KEY"
	version    = "1"

	tempPattern = ".balai-key-*.tmp" // of files on the way to their name; nobody else calls a file so

	headerVersion = "Version"
	headerPeer    = "Peer"

	maxFile  = 4096 // bytes; both formats take less than 400
	fileMode = 0o600
	dirMode  = 0o700
	othersRW = 0o077
)

// Ask gives the passphrase of a sealed key file. Whoever asked overwrites it after use.
type Ask func() ([]byte, error)

// Load reads the key file at path and writes nothing. A missing file is fs.ErrNotExist; a file that others can read is
// ErrExposed, changed content is ErrCorrupt. For a sealed file, and for no other, ask is called once; without ask it is
// ErrSealed, and with a passphrase that does not open it ErrPassphrase.
func Load(path string, ask Ask) (*Key, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	k, err := decode(data)
	if errors.Is(err, ErrSealed) {
		return openFile(path, data, ask)
	}
	if err != nil {
		return nil, damaged(err, path)
	}
	return k, nil
}

func damaged(err error, path string) error {
	return fmt.Errorf("%w (%s); nothing was changed: put back a copy, or move the file away to begin with a new identity", err, path)
}

// LoadOrCreate is Load, or, only when there is no file at path, Generate and Save. Of two processes that do this at
// once one makes the key and both return it. Beside a sealed file it removes what a kill may have left open.
func LoadOrCreate(path string, ask Ask) (*Key, error) {
	k, err := Load(path, ask)
	if _, sealed, look := Inspect(path); err == nil && look == nil && sealed {
		_ = sweep(path) // a disk that cannot be written keeps nobody from starting
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = Generate(); err != nil {
		return nil, err
	}
	err = k.Save(path)
	if errors.Is(err, fs.ErrExist) {
		return Load(path, ask)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// Save writes the key to a new file at path, mode 0600, making its folder (0700) where it is missing. When it returns
// nil the file is whole and on disk; otherwise there is no file of that name that was not there before. An existing
// file is fs.ErrExist and is left alone.
func (k *Key) Save(path string) error {
	data := k.encode()
	defer clear(data)
	if err := createPrivate(path, data); err != nil {
		return fmt.Errorf("identity: save: %w", err)
	}
	return nil
}

// encode is the unsealed key file.
func (k *Key) encode() []byte {
	seed := k.private.Seed()
	defer clear(seed)
	return pem.EncodeToMemory(&pem.Block{Type: plainType, Headers: headersOf(k), Bytes: seed})
}

func headersOf(k *Key) map[string]string {
	return map[string]string{headerVersion: version, headerPeer: k.id.String()}
}

// decode reads an unsealed key file. The peer id beside the seed must be the seed's, so that no changed byte of either
// makes another key.
func decode(data []byte) (*Key, error) {
	block, err := parse(data)
	if err != nil {
		return nil, err
	}
	if block.Type == sealedType {
		return nil, ErrSealed
	}
	defer clear(block.Bytes)
	if len(block.Bytes) != ed25519.SeedSize {
		return nil, ErrCorrupt
	}
	return keyNamed(block.Bytes, block.Headers[headerPeer])
}

// parse reads one PEM block of a known type and version with nothing after it.
func parse(data []byte) (*pem.Block, error) {
	block, rest := pem.Decode(data)
	if block == nil || len(rest) != 0 || (block.Type != plainType && block.Type != sealedType) {
		return nil, ErrCorrupt
	}
	if v := block.Headers[headerVersion]; v != version {
		return nil, fmt.Errorf("%w: version %q, this program reads %s", ErrCorrupt, v, version)
	}
	return block, nil
}

// keyNamed is the key of seed if its peer id is name.
func keyNamed(seed []byte, name string) (*Key, error) {
	k, err := fromSeed(seed)
	if err != nil || k.id.String() != name {
		return nil, ErrCorrupt
	}
	return k, nil
}

// readPrivate reads a small regular file that nobody but its owner may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrCorrupt, path)
	}
	if err := private(path, info.Mode()); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%w: %s is longer than a key file", ErrCorrupt, path)
	}
	return data, nil
}

// private refuses the mode of a file that others have rights to. Windows keeps rights in access lists and has no such
// mode bits; there the folder of the user's profile protects the file.
func private(path string, mode fs.FileMode) error {
	if runtime.GOOS != "windows" && mode.Perm()&othersRW != 0 {
		return fmt.Errorf("%w: %s has mode %04o; take the rights of others away with: chmod 600 %s", ErrExposed, path, mode.Perm(), path)
	}
	return nil
}

// createPrivate makes a file that did not exist: written and synced under a name of its own, then linked to its place,
// which fails if the place is taken, then the folder is synced.
func createPrivate(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	tmp, err := writeTemp(dir, data)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	if err := place(tmp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeTemp(dir string, data []byte) (string, error) {
	f, err := os.CreateTemp(dir, tempPattern)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(fileMode), f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// place gives tmp the name path if that is free. File systems without hard links get a rename after a look; two
// processes could meet there, and the daemon's lock on its folder keeps them apart.
func place(tmp, path string) error {
	err := os.Link(tmp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, look := os.Lstat(path); !errors.Is(look, fs.ErrNotExist) {
		return errors.Join(err, look)
	}
	return os.Rename(tmp, path)
}

// syncDir makes the names in dir durable. Windows cannot sync a folder and does not need it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
