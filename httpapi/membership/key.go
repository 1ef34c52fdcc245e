package membership

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

// maxKeyFile bounds what is read of a key file.
const maxKeyFile = 4096

// ReadKey reads the key of a group: 16, 24 or 32 bytes (AES-128, -192 or -256
// in GCM mode), in base64 and nothing else in the file. The members of a group
// share it.
func ReadKey(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxKeyFile || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a key file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, fmt.Errorf("%s is not base64: %w", path, err)
	}
	switch len(key) {
	case 16, 24, 32:
		return key, nil
	}
	return nil, fmt.Errorf("%s holds %d bytes; want 16, 24 or 32", path, len(key))
}
