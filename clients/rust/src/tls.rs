//! TLS with a service whose certificate is known by its fingerprint, as the ready line has it.

use crate::error::Error;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::sync::Arc;

/// What a connection takes: this certificate, whoever signed it, and no other; without one, none.
pub(crate) fn pinned(fingerprint: Option<&str>) -> Result<ClientConfig, Error> {
    let sha256 = fingerprint.map(bytes_of).transpose()?;
    let provider = Arc::new(ring::default_provider());
    let verifier = Pinned { sha256, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Strange(error.to_string()))?
        .dangerous() // what stands in the place of authorities is stricter than they are
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct Pinned {
    sha256: Option<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let suite = self.provider.cipher_suites.iter().find_map(|suite| match suite {
            rustls::SupportedCipherSuite::Tls13(suite) => {
                Some(suite.common.hash_provider).filter(|hash| hash.output_len() == 32)
            }
            rustls::SupportedCipherSuite::Tls12(_) => None,
        });
        let same = suite
            .is_some_and(|hash| Some(hash.hash(certificate).as_ref()) == self.sha256.as_deref());
        if same {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The bytes of `5F:3A:…`.
fn bytes_of(fingerprint: &str) -> Result<Vec<u8>, Error> {
    let bytes = fingerprint.split(':').map(|pair| u8::from_str_radix(pair, 16));
    match bytes.collect::<Result<Vec<u8>, _>>() {
        Ok(bytes) if bytes.len() == 32 => Ok(bytes),
        _ => Err(Error::Strange(format!("'{fingerprint}' is no fingerprint of SHA-256"))),
    }
}
