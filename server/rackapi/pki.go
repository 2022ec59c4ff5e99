package rackapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// RegionName is the DNS name in the region's certificate, by which racks know it whatever address they reach it at.
const RegionName = "ingot-region"

// The files of a PKI folder.
const (
	caFile     = "ca.pem"      // the CA's certificate
	caKeyFile  = "ca.key"      // its key
	secretFile = "rack-secret" // the enrolment secret
)

const (
	caLife   = 20 * 365 * 24 * time.Hour
	leafLife = 10 * 365 * 24 * time.Hour // racks are revoked by deleting them, not by waiting
)

// PKI is the region's own certificate authority: it certifies the region to racks and racks to the region. It signs nothing else.
type PKI struct {
	ca     *x509.Certificate
	key    crypto.Signer
	server tls.Certificate
	secret string
	now    func() time.Time
}

// OpenPKI reads the authority in a folder, or makes one at the first start: key and secret readable by their owner only. Several
// regions of one installation share the folder's content.
func OpenPKI(dir string, now func() time.Time) (*PKI, error) {
	if now == nil {
		now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("rack link: %w", err)
	}
	p := &PKI{now: now}
	if err := p.loadCA(dir); err != nil {
		return nil, fmt.Errorf("rack link: certificate authority: %w", err)
	}
	secret, err := os.ReadFile(filepath.Join(dir, secretFile))
	if errors.Is(err, fs.ErrNotExist) {
		secret = []byte(rand.Text() + "\n")
		err = createFile(filepath.Join(dir, secretFile), secret)
	}
	if err != nil {
		return nil, fmt.Errorf("rack link: enrolment secret: %w", err)
	}
	if p.secret = strings.TrimSpace(string(secret)); len(p.secret) < 16 {
		return nil, fmt.Errorf("rack link: the enrolment secret in %s is shorter than 16 characters", filepath.Join(dir, secretFile))
	}
	// The region's own certificate need not outlive the process: racks verify it by the authority.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := p.sign(&x509.Certificate{Subject: pkix.Name{CommonName: RegionName}, DNSNames: []string{RegionName},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, key.Public())
	if err != nil {
		return nil, fmt.Errorf("rack link: %w", err)
	}
	p.server = tls.Certificate{Certificate: [][]byte{der, p.ca.Raw}, PrivateKey: key}
	return p, nil
}

func (p *PKI) loadCA(dir string) error {
	certPEM, err := os.ReadFile(filepath.Join(dir, caFile))
	if errors.Is(err, fs.ErrNotExist) {
		return p.makeCA(dir)
	}
	if err != nil {
		return err
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, caKeyFile))
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return err
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the key cannot sign")
	}
	p.key = signer
	p.ca, err = x509.ParseCertificate(pair.Certificate[0])
	return err
}

func (p *PKI) makeCA(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "Ingot region " + rand.Text()[:6]},
		NotBefore: p.now().Add(-time.Hour), NotAfter: p.now().Add(caLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The key first: a certificate without its key would be taken for a complete authority.
	if err := createFile(filepath.Join(dir, caKeyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return err
	}
	if err := createFile(filepath.Join(dir, caFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return err
	}
	p.key = key
	p.ca, err = x509.ParseCertificate(der)
	return err
}

// createFile writes a private file and syncs it. One that is there already is replaced: it is left of a start that did not end.
func createFile(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n.Add(n, big.NewInt(1))
}

func (p *PKI) sign(tmpl *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	tmpl.SerialNumber = serial()
	tmpl.NotBefore, tmpl.NotAfter = p.now().Add(-time.Hour), p.now().Add(leafLife)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	return x509.CreateCertificate(rand.Reader, tmpl, p.ca, pub, p.key)
}

// SignRack certifies the key of a certificate request; nothing else of the request is used. It returns the certificate in PEM and its
// fingerprint.
func (p *PKI) SignRack(csrPEM, name string) (string, string, error) {
	block, rest := pem.Decode([]byte(csrPEM))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return "", "", errors.New("the certificate request is not one in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return "", "", errors.New("the certificate request cannot be read")
	}
	if err := csr.CheckSignature(); err != nil {
		return "", "", errors.New("the certificate request is not signed by its key")
	}
	der, err := p.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, csr.PublicKey)
	if err != nil {
		return "", "", fmt.Errorf("sign the rack's certificate: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), digest(der), nil
}

// CAPEM is the authority's certificate.
func (p *PKI) CAPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw}))
}

// Fingerprint is the SHA-256 of the authority's certificate in hexadecimal: what an operator gives a new rack.
func (p *PKI) Fingerprint() string { return digest(p.ca.Raw) }

// Secret is the enrolment secret. It is in a file of mode 0600 beside the authority, and must not be logged.
func (p *PKI) Secret() string { return p.secret }

// TLS is the configuration of the listener of racks: those that are not enrolled yet have no certificate.
func (p *PKI) TLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(p.ca)
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
}

func digest(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
