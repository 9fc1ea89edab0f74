//! SCRAM-SHA-256 (RFC 5802, RFC 7677): the client knows the password, the server shows that it knows it, too.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

/// The header "no channel binding", in base64 as the last message repeats it.
const NO_BINDING: &str = "biws";
/// Rounds that a server may ask for.
const ITERATIONS_MAX: u32 = 1_000_000;

/// A log-in that is under way.
pub(super) struct Scram {
    /// PostgreSQL takes the user from elsewhere: empty.
    user: &'static str,
    password: String,
    nonce: String,
    /// What the server has to sign at the end, and with what.
    signed: Option<(hmac::Key, String)>,
}

impl Scram {
    /// Begins with a nonce of its own.
    pub(super) fn begin(password: &str) -> Result<Self, String> {
        let mut nonce = [0; 18];
        SystemRandom::new().fill(&mut nonce).map_err(|_| "there are no random numbers".to_owned())?;
        Ok(Self::with_nonce("", password, STANDARD.encode(nonce)))
    }

    fn with_nonce(user: &'static str, password: &str, nonce: String) -> Self {
        Self { user, password: password.to_owned(), nonce, signed: None }
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.bare())
    }

    fn bare(&self) -> String {
        format!("n={},r={}", self.user, self.nonce)
    }

    /// The proof that the password is known.
    pub(super) fn prove(&mut self, challenge: &[u8]) -> Result<String, String> {
        let strange = || "the server's challenge is none".to_owned();
        let challenge = std::str::from_utf8(challenge).map_err(|_| strange())?;
        let field = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(rounds)) = (field("r="), field("s="), field("i=")) else {
            return Err(strange());
        };
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's challenge is to somebody else".to_owned());
        }
        let salt = STANDARD.decode(salt).map_err(|_| strange())?;
        let rounds = rounds.parse::<NonZeroU32>().ok().filter(|rounds| rounds.get() <= ITERATIONS_MAX);
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds.ok_or_else(strange)?,
            &salt,
            self.password.as_bytes(),
            &mut salted,
        );
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client = hmac::sign(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client.as_ref());
        let unproved = format!("c={NO_BINDING},r={nonce}");
        let said = format!("{},{challenge},{unproved}", self.bare());
        let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, stored.as_ref()), said.as_bytes());
        let proof: Vec<u8> = client.as_ref().iter().zip(signed.as_ref()).map(|(a, b)| a ^ b).collect();
        let server = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&salted, b"Server Key").as_ref());
        self.signed = Some((server, said));
        Ok(format!("{unproved},p={}", STANDARD.encode(proof)))
    }

    /// The server knows the password, too.
    pub(super) fn verify(&self, said: &[u8]) -> Result<(), String> {
        let said = said.strip_prefix(b"v=").and_then(|text| STANDARD.decode(text).ok());
        let (Some(said), Some((key, expected))) = (said, &self.signed) else {
            return Err("the server did not show that it knows the password".to_owned());
        };
        hmac::verify(key, expected.as_bytes(), &said).map_err(|_| "the server does not know the password".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn proof_and_signature_are_those_of_the_standard() {
        let mut scram = Scram::with_nonce("user", "pencil", "rOprNGfwEbeRWgbNEkqO".to_owned());
        let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = scram.prove(challenge).unwrap();
        assert!(proof.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), "{proof}");
        scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(scram.verify(b"v=AAAA").is_err());
        assert!(scram.prove(b"r=other,s=AAAA,i=4096").is_err());
        assert!(scram.prove(b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=0").is_err());
    }
}
