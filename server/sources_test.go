package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/servertest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// multipartForm is a multipart body of fields and one file.
func multipartForm(t *testing.T, fields map[string]string, file string, content []byte) (string, *bytes.Buffer) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for k, v := range fields {
		if err := w.WriteField(k, v); err != nil {
			t.Fatal(err)
		}
	}
	if file != "" {
		part, err := w.CreateFormFile(file, "upload.bin")
		if err == nil {
			_, err = part.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), &b
}

func TestBootSources(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	run(t, []step{
		{e.Anon, "GET", "boot-sources/", "", 401, ""},
		{user, "GET", "boot-sources/", "", 200, `"url": "http://images.maas.io/ephemeral-v3/stable"`},
		{user, "GET", "boot-sources/1/", "", 200, `"keyring_data": ""`},
		{user, "GET", "boot-sources/99/", "", 404, "No BootSource matches the given query."},
		{user, "POST", "boot-sources/", "url=http://x", 403, "can_edit_boot_entities"},
		{admin, "POST", "boot-sources/", "", 400, `{ "url": [ "This field is required." ] }`},
		{admin, "POST", "boot-sources/", "url=http://img.example/s/", 400, "One of keyring_data or keyring_filename must be specified."},
		{admin, "POST", "boot-sources/", "url=ftp://x&keyring_filename=/k", 400, "Enter a valid URL."},
		{admin, "POST", "boot-sources/", "url=http://x&keyring_filename=k", 400, "keyring_filename"},
		{admin, "POST", "boot-sources/", "url=http://images.maas.io/ephemeral-v3/stable/&keyring_filename=/k", 400, "Boot source with this Url already exists."},
		{admin, "POST", "boot-sources/", "url=http://x&keyring_filename=/k&priority=1", 400, "Boot source with this Priority already exists."},
		{admin, "POST", "boot-sources/", "url=http://x&keyring_filename=/k&priority=-1", 400, "greater than or equal to 0"},
		{admin, "POST", "boot-sources/", "url=http://img.example/s/&keyring_filename=/usr/share/k.gpg", 201, `"url": "http://img.example/s/"`},
		{admin, "GET", "boot-sources/2/", "", 200, `"priority": 2`},
		{admin, "POST", "boot-sources/", "url=http://open.example&skip_keyring_verification=true&name=open&enabled=0", 201, `"enabled": false`},
		{admin, "PUT", "boot-sources/3/", "skip_keyring_verification=false", 400, "One of keyring_data or keyring_filename must be specified."},
		{admin, "PUT", "boot-sources/2/", "name=second&priority=7", 200, `"name": "second"`},
		{admin, "PUT", "boot-sources/99/", "name=x", 404, "No BootSource matches the given query."},
		{user, "PUT", "boot-sources/2/", "name=x", 403, "can_edit_boot_entities"},
	})
	kind, body := multipartForm(t, nil, "keyring_data", []byte{1, 2, 3})
	a := admin.Send(http.MethodPut, "boot-sources/2/", kind, body)
	if a.Status != 200 || !strings.Contains(a.Text(), `"keyring_data": "AQID"`) || !strings.Contains(a.Text(), `"keyring_filename": ""`) {
		t.Errorf("upload of a keyring: %d %s", a.Status, a.Text())
	}
	kind, body = multipartForm(t, map[string]string{"url": "http://data.example"}, "keyring_data", []byte("ring"))
	if a := admin.Send(http.MethodPost, "boot-sources/", kind, body); a.Status != 201 || !strings.Contains(a.Text(), `"keyring_data": "cmluZw=="`) {
		t.Errorf("create with a keyring: %d %s", a.Status, a.Text())
	}
	kind, body = multipartForm(t, map[string]string{"url": "http://both.example", "keyring_filename": "/k"}, "keyring_data", []byte("ring"))
	if a := admin.Send(http.MethodPost, "boot-sources/", kind, body); a.Status != 400 || !strings.Contains(a.Text(), "Only one of keyring_filename or keyring_data can be specified.") {
		t.Errorf("create with two keyrings: %d %s", a.Status, a.Text())
	}
	run(t, []step{
		{user, "GET", "boot-sources/1/selections/", "", 200, `"release": "noble"`},
		{user, "GET", "boot-sources/99/selections/", "", 404, "No BootSource matches the given query."},
		{user, "POST", "boot-sources/2/selections/", "os=ubuntu&release=jammy", 403, "can_edit_boot_entities"},
		{admin, "POST", "boot-sources/2/selections/", "os=ubuntu", 400, `{ "release": [ "This field is required." ] }`},
		{admin, "POST", "boot-sources/2/selections/", "os=ubuntu&release=ja mmy", 400, "Enter a valid value."},
		{admin, "POST", "boot-sources/2/selections/", "os=ubuntu&release=jammy&arches=amd64&arches=arm64&subarches=*", 200, `"arches": [ "amd64", "arm64" ]`},
		{admin, "POST", "boot-sources/2/selections/", "os=ubuntu&release=jammy", 400, "Boot source selection with this Boot source, Os and Release already exists."},
		{user, "GET", "boot-sources/2/selections/2/", "", 200, `"labels": []`},
		{user, "GET", "boot-sources/1/selections/2/", "", 404, "No BootSourceSelection matches the given query."},
		{admin, "PUT", "boot-sources/2/selections/2/", "release=noble&labels=*", 200, `"labels": [ "*" ]`},
		{admin, "PUT", "boot-sources/2/selections/2/", "arches=", 200, `"arches": []`},
		{user, "DELETE", "boot-sources/2/selections/2/", "", 403, "can_edit_boot_entities"},
		{admin, "DELETE", "boot-sources/2/selections/2/", "", 204, ""},
		{admin, "DELETE", "boot-sources/2/selections/2/", "", 404, "No BootSourceSelection matches the given query."},
		{admin, "DELETE", "boot-sources/2/", "", 204, ""},
		{admin, "DELETE", "boot-sources/2/", "", 404, "No BootSource matches the given query."},
		{user, "POST", "boot-resources/?op=import", "", 403, "can_edit_boot_entities"},
		{user, "GET", "boot-resources/?op=is_importing", "", 200, "false"},
		{admin, "POST", "boot-resources/?op=import", "", 200, "Import of boot resources started"},
		{user, "GET", "boot-resources/?op=is_importing", "", 200, "true"},
		{admin, "POST", "boot-resources/?op=stop_import", "", 200, "Import of boot resources is being stopped"},
		{user, "GET", "boot-resources/?op=is_importing", "", 200, "false"},
		{admin, "POST", "boot-sources/", "url=file:///srv/mirror&keyring_filename=/k", 400, "start it with --image-mirror FOLDER"},
	})
}

func TestPackageRepositories(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	run(t, []step{
		{user, "GET", "package-repositories/", "", 200, `"name": "ports_archive"`},
		{user, "GET", "package-repositories/main_archive/", "", 200, `"arches": [ "amd64", "i386" ]`},
		{user, "GET", "package-repositories/1/", "", 200, `"name": "main_archive"`},
		{user, "GET", "package-repositories/none/", "", 404, "No PackageRepository matches the given query."},
		{user, "POST", "package-repositories/", "name=x&url=http://x", 403, "can_edit_global_entities"},
		{admin, "POST", "package-repositories/", "", 400, "This field is required."},
		{admin, "POST", "package-repositories/", "name=x&url=gopher://x", 400, "Enter a valid repository URL or PPA location."},
		{admin, "POST", "package-repositories/", "name=x&url=http://x&arches=sparc", 400, "'sparc' is not a valid architecture. Known architectures: amd64, i386"},
		{admin, "POST", "package-repositories/", "name=x&url=http://x&disabled_pockets=yesterday", 400, "'yesterday' is not a valid Ubuntu archive pocket."},
		{admin, "POST", "package-repositories/", "name=" + strings.Repeat("x", 42) + "&url=http://x", 400, "at most 41 characters"},
		{admin, "POST", "package-repositories/", "name=main_archive&url=http://x", 400, "Package repository with this Name already exists."},
		{admin, "POST", "package-repositories/", "name=mine&url=ppa:me/tools&components=a,b&distributions=noble", 200, `"components": [ "a", "b" ]`},
		{admin, "GET", "package-repositories/mine/", "", 200, `"arches": [ "amd64", "i386" ]`},
		{admin, "PUT", "package-repositories/mine/", "disabled_components=universe", 400, "This is a custom repository. Please update 'components' instead."},
		{admin, "PUT", "package-repositories/mine/", "components=&enabled=false&disable_sources=0&key=KEY", 200, `"components": []`},
		{admin, "PUT", "package-repositories/main_archive/", "components=universe", 400, "This is a default Ubuntu repository. Please update 'disabled_components' instead."},
		{admin, "PUT", "package-repositories/main_archive/", "disabled_components=main", 400, "'main' is not a valid Ubuntu archive component."},
		{admin, "PUT", "package-repositories/main_archive/", "disabled_components=universe,multiverse&disabled_pockets=backports", 200, `"disabled_pockets": [ "backports" ]`},
		{admin, "PUT", "package-repositories/main_archive/", "enabled=false", 400, "Default repositories may not be disabled."},
		{admin, "PUT", "package-repositories/main_archive/", "name=other", 400, "cannot be renamed"},
		{admin, "PUT", "package-repositories/main_archive/", "url=http://mirror.example/ubuntu", 200, `"url": "http://mirror.example/ubuntu"`},
		{admin, "GET", "maas/?op=get_config&name=main_archive", "", 200, `"http://mirror.example/ubuntu"`},
		{admin, "POST", "maas/?op=set_config", "name=main_archive&value=nonsense", 400, "Enter a valid URL."},
		{admin, "POST", "maas/?op=set_config", "name=ports_archive&value=http://ports.example/", 200, "OK"},
		{admin, "GET", "package-repositories/ports_archive/", "", 200, `"url": "http://ports.example/"`},
		{user, "DELETE", "package-repositories/mine/", "", 403, "can_edit_global_entities"},
		{admin, "DELETE", "package-repositories/1/", "", 400, "Default package repositories cannot be deleted."},
		{admin, "DELETE", "package-repositories/mine/", "", 204, ""},
		{admin, "DELETE", "package-repositories/mine/", "", 404, "No PackageRepository matches the given query."},
	})
}

func TestLicenseKeys(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	const key, key2 = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", "11111-22222-33333-44444-55555"
	run(t, []step{
		{user, "GET", "license-keys/", "", 403, "can_view_license_keys"},
		{admin, "GET", "license-keys/", "", 200, "[]"},
		{user, "POST", "license-keys/", "distro_series=windows/win2019&license_key=" + key, 403, "can_edit_license_keys"},
		{admin, "POST", "license-keys/", "osystem=windows", 400, "This field is required."},
		{admin, "POST", "license-keys/", "osystem=ubuntu&distro_series=noble&license_key=" + key, 400, "ubuntu is not one of the available choices"},
		{admin, "POST", "license-keys/", "osystem=windows&distro_series=win2019&license_key=short", 400, "Invalid license key."},
		{admin, "POST", "license-keys/", "osystem=windows&distro_series=centos/x&license_key=" + key, 400, "does not match with osystem windows"},
		{admin, "POST", "license-keys/", "distro_series=windows/win2019&license_key=" + key, 200, `"resource_uri": "/MAAS/api/2.0/license-key/windows/win2019"`},
		{admin, "POST", "license-keys/", "osystem=windows&distro_series=win2019&license_key=" + key, 400, "already exists"},
		{admin, "GET", "license-keys/", "", 200, key},
		{admin, "GET", "license-key/windows/win2019", "", 200, key},
		{admin, "GET", "license-key/windows/win2019/", "", 200, key}, // as gomaasclient sends it
		{user, "GET", "license-key/windows/win2019", "", 403, "can_view_license_keys"},
		{admin, "GET", "license-key/windows/none", "", 404, "No LicenseKey matches the given query."},
		{admin, "PUT", "license-key/windows/win2019", "license_key=bad", 400, "Invalid license key."},
		{admin, "PUT", "license-key/windows/win2019/", "license_key=" + key2, 200, key2},
		{admin, "PUT", "license-key/windows/none", "license_key=" + key2, 404, "No LicenseKey matches the given query."},
		{admin, "DELETE", "license-key/windows/none", "", 204, ""},
		{admin, "DELETE", "license-key/windows/win2019", "", 204, ""},
		{admin, "GET", "license-keys/", "", 200, "[]"},
	})
	if a := admin.Get("events/?op=query&level=AUDIT"); strings.Contains(a.Text(), key) || strings.Contains(a.Text(), key2) || !strings.Contains(a.Text(), "windows/win2019") {
		t.Errorf("the events: %s", a.Text())
	}
	if strings.Contains(e.Log.String(), key) {
		t.Error("the log holds a license key")
	}
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func TestSSLKeys(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	cert, key := certificate(t)
	for name, bad := range map[string]string{"text": "x", "private key": key, "both": cert + key, "key first": key + cert, "two": cert + cert, "cut": cert[:80]} {
		if a := user.Post("account/prefs/sslkeys/", "key", bad); a.Status != 400 || !strings.Contains(a.Text(), "not a valid X.509 certificate") {
			t.Errorf("%s: %d %s", name, a.Status, a.Text())
		}
	}
	if a := user.Post("account/prefs/sslkeys/"); a.Status != 400 || !strings.Contains(a.Text(), "This field is required.") {
		t.Errorf("%d %s", a.Status, a.Text())
	}
	a := user.Post("account/prefs/sslkeys/", "key", cert)
	var made map[string]any
	if a.Into(t, &made); a.Status != 201 || len(made) != 2 || !strings.HasPrefix(made["key"].(string), "-----BEGIN CERTIFICATE-----") {
		t.Errorf("%d %s", a.Status, a.Text())
	}
	if a := user.Post("account/prefs/sslkeys/", "key", "\n"+strings.ReplaceAll(cert, "\n", "\r\n")); a.Status != 400 || !strings.Contains(a.Text(), "already been added") {
		t.Errorf("again: %d %s", a.Status, a.Text())
	}
	run(t, []step{
		{e.Anon, "GET", "account/prefs/sslkeys/", "", 401, ""},
		{user, "GET", "account/prefs/sslkeys/", "", 200, `"resource_uri": "/MAAS/api/2.0/account/prefs/sslkeys/1/"`},
		{admin, "GET", "account/prefs/sslkeys/", "", 200, "[]"},
		{user, "GET", "account/prefs/sslkeys/1/", "", 200, "BEGIN CERTIFICATE"},
		{admin, "GET", "account/prefs/sslkeys/1/", "", 403, "Can't get a key you don't own."},
		{admin, "DELETE", "account/prefs/sslkeys/1/", "", 403, "Can't delete a key you don't own."},
		{user, "GET", "account/prefs/sslkeys/9/", "", 404, "No SSLKey matches the given query."},
		{user, "DELETE", "account/prefs/sslkeys/1/", "", 204, ""},
		{user, "DELETE", "account/prefs/sslkeys/1/", "", 404, "No SSLKey matches the given query."},
	})
}

func publicKey(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ssh.NewPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
}

func TestImportSSHKeys(t *testing.T) {
	one, two := publicKey(t), publicKey(t)
	var asked []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("followed to another host: %s", r.URL)
	}))
	defer elsewhere.Close()
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		switch r.URL.Path {
		case "/~anna/+sshkeys":
			_, _ = fmt.Fprintf(w, "%s anna@home\n\nssh-weird AAAA x\nfrom=\"1.2.3.4\" %s\n%s\n", one, two, two)
		case "/octo.keys":
			_, _ = fmt.Fprintln(w, one)
		case "/none.keys":
		case "/large.keys":
			_, _ = fmt.Fprint(w, strings.Repeat("x", 1<<20))
		case "/away.keys":
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		case "/broken.keys":
			w.WriteHeader(500)
		default:
			http.NotFound(w, r)
		}
	}))
	defer host.Close()
	e := servertest.New(t, func(p *servertest.ProvisionerConfig, _ *servertest.ServerConfig) {
		p.KeyHosts = provisioner.KeyHosts{Launchpad: host.URL, GitHub: host.URL}
	})
	user := e.User
	run(t, []step{
		{e.Anon, "POST", "account/prefs/sshkeys/?op=import", "keysource=lp:anna", 401, ""},
		{user, "POST", "account/prefs/sshkeys/?op=import", "", 400, "keysource"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=xx:anna", 400, "lp:user or gh:user"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=lp:../../etc", 400, "There is no lp user"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=gh:a/b", 400, "There is no gh user"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=lp:", 400, "There is no lp user"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=lp:nobody", 400, "There is no lp user 'nobody'."},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=gh:none", 400, "no usable keys"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=gh:large", 400, "more than"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=gh:away", 400, "could not be reached"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=gh:broken", 400, "status 500"},
		{user, "GET", "account/prefs/sshkeys/", "", 200, "[]"},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=anna", 200, `"keysource": "lp:anna"`},
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=lp:anna", 200, `"keysource": "lp:anna"`}, // again: nothing new
		{user, "POST", "account/prefs/sshkeys/?op=import", "keysource=gh:octo", 200, `"keysource": "gh:octo"`},
	})
	var keys []struct{ Key, Keysource string }
	user.Get("account/prefs/sshkeys/").Into(t, &keys)
	if len(keys) != 3 || keys[0].Key != one+" anna@home" || keys[1].Key != two || keys[2].Keysource != "gh:octo" {
		b, _ := json.Marshal(keys)
		t.Errorf("%s", b)
	}
	for _, path := range asked {
		if strings.Contains(path, "etc") || strings.Contains(path, "a/b") {
			t.Errorf("asked for %s", path)
		}
	}
}

func TestOIDCAndInternal(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	const good = "name=n&issuer_url=https://i.example&client_id=c&client_secret=s&enabled=true&token_type=JWT&redirect_uri=https://m.example&scopes=openid&vendor="
	run(t, []step{
		{user, "GET", "oidc-providers/", "", 403, "can_view_identities"},
		{admin, "GET", "oidc-providers/", "", 200, `"No OIDC providers found."`},
		{admin, "GET", "oidc-providers/?op=get_active", "", 404, "No enabled OIDC provider found."},
		{admin, "GET", "oidc-providers/1/", "", 404, "No OIDC provider found with ID: 1"},
		{admin, "PUT", "oidc-providers/1/", "name=x", 404, "No OIDC provider found with ID: 1"},
		{admin, "DELETE", "oidc-providers/1/", "", 404, "No OIDC provider found with ID: 1"},
		{user, "DELETE", "oidc-providers/1/", "", 403, "can_edit_identities"},
		{admin, "POST", "oidc-providers/", good + "INVALID", 400, "Invalid vendor: INVALID. Must be one of: Generic, EntraID, Auth0, Keycloak."},
		{admin, "POST", "oidc-providers/", strings.Replace(good, "https://i.example", "ldap://x", 1) + "Generic", 400, "issuer_url"},
		{admin, "POST", "oidc-providers/", good + "Generic", 501, "not built yet"},
		{user, "POST", "oidc-providers/", good + "Generic", 403, "can_edit_identities"},

		{admin, "GET", "agents/abc123/services/dhcp/config/", "", 403, ""},
		{admin, "GET", "images-sync-progress/", "", 403, ""},
		{e.Anon, "GET", "images-sync-progress/", "", 401, ""},
		{admin, "GET", "vm-hosts/", "", 410, "VM host (KVM) support has been removed from MAAS."},
		{admin, "POST", "vm-hosts/1/?op=compose", "", 410, "VM host (KVM) support has been removed from MAAS."},
		{admin, "GET", "pods/", "", 410, "VM host (KVM) support has been removed from MAAS."},
		{admin, "GET", "vm-clusters/", "", 410, "VM host (KVM) support has been removed from MAAS."},
	})
}
