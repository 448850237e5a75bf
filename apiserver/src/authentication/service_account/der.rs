//! The few DER shapes that key files need and no library here hands out: SEC1 private keys taken apart,
//! SubjectPublicKeyInfo put together.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;

/// `rsaEncryption` with its NULL parameter, as an AlgorithmIdentifier's content.
const RSA_ALGORITHM: &[u8] = &[OID, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const EC_PUBLIC_KEY: &[u8] = &[OID, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// One element: tag, content, and what follows it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let bytes = usize::from(first & 0x7f);
        if bytes == 0 || bytes > 4 || rest.len() < bytes {
            return None;
        }
        (rest[..bytes].iter().fold(0_usize, |n, b| n << 8 | usize::from(*b)), &rest[bytes..])
    };
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// Curve OID, private scalar and public point of a SEC1 `ECPrivateKey` that names both.
pub fn sec1(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (SEQUENCE, mut inside, _) = element(der)? else { return None };
    let (INTEGER, _, rest) = element(inside)? else { return None };
    let (OCTET_STRING, private, rest) = element(rest)? else { return None };
    inside = rest;
    let (mut curve, mut point) = (None, None);
    while !inside.is_empty() {
        let (tag, content, rest) = element(inside)?;
        match (tag, element(content)?) {
            (0xa0, (OID, oid, _)) => curve = Some(oid),
            (0xa1, (BIT_STRING, bits, _)) => point = bits.get(1..),
            _ => {}
        }
        inside = rest;
    }
    Some((curve?, private, point?))
}

fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        out.push(0x80 | bytes.len() as u8);
        out.extend(bytes);
    }
    out.extend_from_slice(content);
    out
}

fn bit_string(content: &[u8]) -> Vec<u8> {
    wrap(BIT_STRING, &[&[0], content].concat())
}

/// SubjectPublicKeyInfo of a PKCS#1 `RSAPublicKey`.
pub fn rsa_spki(pkcs1: &[u8]) -> Vec<u8> {
    wrap(SEQUENCE, &[wrap(SEQUENCE, RSA_ALGORITHM), bit_string(pkcs1)].concat())
}

/// SubjectPublicKeyInfo of an uncompressed point on `curve`.
pub fn ec_spki(curve: &[u8], point: &[u8]) -> Vec<u8> {
    let algorithm = [EC_PUBLIC_KEY.to_vec(), wrap(OID, curve)].concat();
    wrap(SEQUENCE, &[wrap(SEQUENCE, &algorithm), bit_string(point)].concat())
}

/// Modulus and exponent (big endian, no leading zero) of a PKCS#1 `RSAPublicKey`.
pub fn rsa_parts(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let (SEQUENCE, inside, _) = element(pkcs1)? else { return None };
    let (INTEGER, modulus, rest) = element(inside)? else { return None };
    let (INTEGER, exponent, _) = element(rest)? else { return None };
    let strip = |n: &'_ [u8]| n.iter().take_while(|b| **b == 0).count();
    Some((&modulus[strip(modulus)..], &exponent[strip(exponent)..]))
}
