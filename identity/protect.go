package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Protect replaces the open file of this key at path by one that opens with pass alone; Unprotect is the way back.
// Errors: those of Load; ErrSealed when it is sealed already. What the file held before may still be found in unused
// parts of the disk, in snapshots and in backups.
func (k *Key) Protect(path string, pass []byte) error {
	sealed, err := k.Seal(pass)
	if err != nil {
		return err
	}
	return k.replace(path, false, sealed)
}

// Unprotect replaces the sealed file of this key at path by an open one. An open file is left as it is.
func (k *Key) Unprotect(path string) error {
	data := k.encode()
	defer clear(data)
	return k.replace(path, true, data)
}

// SaveSealed is Save of a file that opens with pass alone.
func (k *Key) SaveSealed(path string, pass []byte) error {
	sealed, err := k.Seal(pass)
	if err != nil {
		return err
	}
	if err := createPrivate(path, sealed); err != nil {
		return fmt.Errorf("identity: save: %w", err)
	}
	return nil
}

// Inspect reads whose key the file at path is, and whether it is sealed, without a passphrase. Of a sealed file the
// name is what the file says and is proved by Load alone. Errors as those of Load.
func Inspect(path string) (peer string, sealed bool, err error) {
	data, err := readPrivate(path)
	if err != nil {
		return "", false, err
	}
	defer clear(data)
	k, err := decode(data)
	if errors.Is(err, ErrSealed) {
		block, err := parse(data)
		if err != nil {
			return "", true, damaged(err, path)
		}
		return block.Headers[headerPeer], true, nil
	}
	if err != nil {
		return "", false, damaged(err, path)
	}
	return k.id.String(), false, nil
}

// openFile opens the sealed file that data is.
func openFile(path string, data []byte, ask Ask) (*Key, error) {
	if ask == nil {
		return nil, fmt.Errorf("%w (%s)", ErrSealed, path)
	}
	pass, err := ask()
	if errors.Is(err, fs.ErrNotExist) { // of the passphrase's file: it is no sign that there is no key
		return nil, fmt.Errorf("%v", err) //nolint:errorlint // on purpose
	}
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	k, err := Open(data, pass)
	switch {
	case errors.Is(err, ErrPassphrase):
		return nil, fmt.Errorf("%w (%s); nothing was changed", err, path)
	case err != nil:
		return nil, damaged(err, path)
	}
	return k, nil
}

// replace puts data in the place of this key's file, whose state has to be sealed or not as said.
func (k *Key) replace(path string, sealed bool, data []byte) error {
	path, err := filepath.EvalSymlinks(path) // else the link would be replaced, and the file it leads to left
	if err != nil {
		return err
	}
	peer, is, err := Inspect(path)
	switch {
	case err != nil:
		return err
	case peer != k.id.String():
		return fmt.Errorf("identity: %s holds another key by now; it was left alone", path)
	case is && !sealed:
		return fmt.Errorf("%w already (%s)", ErrSealed, path)
	case !is && sealed:
		return nil
	}
	for _, step := range replacement(path, data) {
		if err := step(); err != nil {
			return fmt.Errorf("identity: replace: %w", err)
		}
	}
	return nil
}

// replacement are the steps from the old file at path to the new. Whoever is killed between two of them, or in one,
// has the old file or the new, whole; only the last step is owed then, and the next replacement makes up for it.
func replacement(path string, data []byte) []func() error {
	var tmp string
	dir := filepath.Dir(path)
	return []func() error{
		func() (err error) { tmp, err = writeTemp(dir, data); return err },
		func() error {
			err := os.Rename(tmp, path)
			if err != nil {
				_ = os.Remove(tmp)
			}
			return err
		},
		func() error { return syncDir(dir) },
		func() error { return sweep(path) },
	}
}

// sweep removes what a kill in the middle of a write left beside the key file at path: it may be an open copy of a key
// that is sealed by now. Not while another process makes a key there.
func sweep(path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	found := false
	for _, e := range entries {
		if ok, _ := filepath.Match(tempPattern, e.Name()); ok && e.Type().IsRegular() {
			found = true
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	if !found {
		return nil
	}
	return errors.Join(err, syncDir(dir))
}

// ReadPassphrase is the first line of the file at path, which nobody but its owner may read; a pipe, such as /dev/fd/3,
// does too. In the folder that systemd names in CREDENTIALS_DIRECTORY the bits of the group are not looked at: they
// show what an access list gives to the service's own user. Errors: fs.ErrNotExist, ErrExposed, that it is empty.
func ReadPassphrase(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mode := info.Mode()
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		mode &^= 0o070
	}
	if err := private(path, mode); err != nil {
		return nil, err
	}
	return FirstLine(f)
}

// FirstLine is the passphrase that r begins with, without the end of its line. One that is empty or longer than 1,024
// bytes is an error.
func FirstLine(r io.Reader) ([]byte, error) {
	const most = 1024
	line := make([]byte, 0, most+1) // one array, so that clearing it clears all
	for len(line) <= most {
		one := line[len(line) : len(line)+1]
		n, err := r.Read(one)
		if n == 1 && one[0] == '\n' || n == 0 && errors.Is(err, io.EOF) {
			break
		}
		if n == 0 && err != nil {
			return nil, err
		}
		line = line[:len(line)+n]
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || len(line) > most {
		return nil, fmt.Errorf("identity: a passphrase is a line of 1 to %d bytes", most)
	}
	return line, nil
}
