package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// chunk is how much of an image travels at once.
const chunk = 4 << 20

// uploadImage creates a boot resource and sends its content in pieces, as MAAS's command line does.
func (c *call) uploadImage(ctx context.Context, in *input) (client.Answer, error) {
	f := in.upload
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return client.Answer{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return client.Answer{}, err
	}
	in.request.Form.Set("sha256", hex.EncodeToString(h.Sum(nil)))
	in.request.Form.Set("size", strconv.FormatInt(size, 10))
	ans, err := c.client.Do(ctx, c.op, in.request)
	if err != nil {
		return ans, err
	}
	uri, complete, err := uploadOf(ans.Body)
	if err != nil || complete {
		return ans, err
	}
	// /MAAS/api/2.0/boot-resources/RESOURCE/upload/FILE/
	parts := strings.Split(strings.Trim(uri, "/"), "/")
	if len(parts) < 3 || parts[len(parts)-2] != "upload" {
		return ans, fmt.Errorf("the server names no place for the content: %q", clean(uri))
	}
	put := api.Lookup("boot_resource_file_upload.upload")
	path := map[string]string{"resource_id": parts[len(parts)-3], "id": parts[len(parts)-1]}
	buf := make([]byte, chunk)
	for sent := int64(0); sent < size; {
		n, err := io.ReadFull(f, buf)
		if n == 0 && err != nil {
			return ans, fmt.Errorf("%s became shorter while it was sent", f.Name())
		}
		if _, err := c.client.Do(ctx, put, client.Request{Path: path, Body: bytes.NewReader(buf[:n])}); err != nil {
			return ans, err
		}
		sent += int64(n)
		fmt.Fprintf(c.errOut, "%s  %3d %% of %s\n", c.now().Format("15:04:05"), sent*100/size, human(float64(size), 1000, "B", "kB", "MB", "GB", "TB"))
	}
	read := api.Lookup("boot_resource.read")
	return c.client.Do(ctx, read, client.Request{Path: map[string]string{"id": parts[len(parts)-3]}})
}

// uploadOf finds where the newest set's file takes its content.
func uploadOf(body []byte) (uri string, complete bool, err error) {
	n, err := parse(body)
	if err != nil {
		return "", false, err
	}
	sets := child(n, "sets")
	if sets == nil || len(sets.Content) < 2 {
		return "", false, errors.New("the server made no set for the content")
	}
	newest := ""
	for i := 0; i+1 < len(sets.Content); i += 2 {
		newest = max(newest, sets.Content[i].Value)
	}
	files := child(child(sets, newest), "files")
	if files == nil {
		return "", false, errors.New("the server made no file for the content")
	}
	for i := 0; i+1 < len(files.Content); i += 2 {
		file := files.Content[i+1]
		if u := text(file, "upload_uri"); u != "" && file.Kind == yaml.MappingNode {
			return u, false, nil
		}
		complete = complete || text(file, "complete") == "true"
	}
	if !complete {
		return "", false, errors.New("the server names no place for the content")
	}
	return "", true, nil
}
