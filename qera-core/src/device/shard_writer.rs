//! What leaves a device: shards as the daemon reads them, written to any line a piece at a time.
//!
//! A shard is a safetensors file: eight bytes with the length of a header, the header in JSON,
//! padded with blanks to a multiple of eight, and the numbers. It says where it ends, so that a
//! reader cuts a stream of them into files. Sums (`<key>::xtx`, `<key>::xtx_rows`) and rows come in
//! shards of their own.
//!
//! Device and number of a shard are in its header: the same shard sent twice is the same file,
//! which the daemon counts once; equal sums of two devices, or of one at two times, are two files.
//!
//! Nothing is held but the header, in memory that is lent: 400 bytes beside key and name of the
//! device are enough.

use core::fmt::{self, Write};

use crate::packed::packed_len;
use crate::rows::Rows;
use crate::statistics::NarrowAutocorrelation;

/// Why a shard was not written. None of it has been sent then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardError {
    /// The memory for the header is too small.
    Header {
        /// How many bytes were lent.
        lent: usize,
    },
    /// The key or the device's name has a character that JSON would escape.
    Name,
    /// There are no rows to send.
    NoRows,
}

impl fmt::Display for ShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { lent } => write!(f, "the header does not fit {lent} bytes"),
            Self::Name => write!(f, "quotes, backslashes and control characters are no names"),
            Self::NoRows => write!(f, "a shard of no rows"),
        }
    }
}

impl core::error::Error for ShardError {}

/// Writes the shards of one layer's input.
pub struct ShardWriter<'a, S> {
    key: &'a str,
    device: &'a str,
    sequence: u32,
    header: &'a mut [u8],
    send: S,
}

impl<S> fmt::Debug for ShardWriter<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardWriter")
            .field("key", &self.key)
            .field("device", &self.device)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl<'a, S: FnMut(&[u8])> ShardWriter<'a, S> {
    /// Starts the shards of one layer's input, named by its key (the module path), from a named
    /// device. `sequence` is the number of the next shard: a device that restarts goes on where it
    /// was.
    ///
    /// # Errors
    /// [`ShardError::Name`].
    ///
    /// ```
    /// use qera_core::device::{ShardError, ShardWriter};
    /// use qera_core::{rows::Rows, statistics::NarrowAutocorrelation};
    /// let (mut packed, mut header, mut sent) = ([0.0; 3], [0; 512], 0);
    /// let mut sums = NarrowAutocorrelation::new(&mut packed, 2)?;
    /// sums.update(&Rows::new(&[1.0, 2.0], 2)?)?;
    /// let send = |bytes: &[u8]| sent += bytes.len();
    /// let mut writer = ShardWriter::new("layers.0.q_proj", "board-7", 0, &mut header, send)?;
    /// writer.sums(&mut sums)?;
    /// assert_eq!((writer.sequence(), sums.weight()), (1, 0.0));
    /// assert_eq!(writer.sums(&mut sums), Err(ShardError::NoRows)); // they were sent
    /// assert_eq!(sent % 8, 4); // header, number of rows, three sums
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn new(
        key: &'a str,
        device: &'a str,
        sequence: u32,
        header: &'a mut [u8],
        send: S,
    ) -> Result<Self, ShardError> {
        let plain = |name: &str| {
            !name
                .chars()
                .any(|c| c.is_control() || c == '"' || c == '\\')
        };
        if !plain(key) || !plain(device) {
            return Err(ShardError::Name);
        }
        Ok(Self {
            key,
            device,
            sequence,
            header,
            send,
        })
    }

    /// The number of the next shard.
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Sends the sums since the last ones, and begins new ones.
    ///
    /// # Errors
    /// [`ShardError::Header`]; [`ShardError::NoRows`] when there is nothing to send, or the weight
    /// is no count of rows.
    pub fn sums(&mut self, sums: &mut NarrowAutocorrelation<'_>) -> Result<(), ShardError> {
        let rows = whole(sums.weight()).ok_or(ShardError::NoRows)?;
        let numbers = packed_len(sums.in_features());
        let end = 8 + 4 * numbers;
        let key = self.key;
        self.send_header(|header| {
            write!(
                header,
                "\"{key}::xtx_rows\":{{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}},\
                 \"{key}::xtx\":{{\"dtype\":\"F32\",\"shape\":[{numbers}],\"data_offsets\":[8,{end}]}}"
            )
        })?;
        (self.send)(&rows.to_le_bytes());
        for sum in sums.sums() {
            (self.send)(&sum.to_le_bytes());
        }
        sums.reset();
        Ok(())
    }

    /// Sends rows as they are, without their weights.
    ///
    /// # Errors
    /// As [`sums`](Self::sums).
    pub fn rows(&mut self, rows: &Rows<'_>) -> Result<(), ShardError> {
        let (key, count, width) = (self.key, rows.len(), rows.in_features());
        if count == 0 {
            return Err(ShardError::NoRows);
        }
        let end = 4 * count * width;
        self.send_header(|header| {
            write!(
                header,
                "\"{key}\":{{\"dtype\":\"F32\",\"shape\":[{count},{width}],\"data_offsets\":[0,{end}]}}"
            )
        })?;
        for row in rows.iter() {
            for value in row.values {
                (self.send)(&value.to_le_bytes());
            }
        }
        Ok(())
    }

    /// Writes the header, and sends it if it fits into the lent memory.
    fn send_header(
        &mut self,
        tensors: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> Result<(), ShardError> {
        let lent = self.header.len();
        let (device, sequence) = (self.device, self.sequence);
        let mut header = Text {
            bytes: &mut *self.header,
            length: 0,
        };
        let written = write!(
            header,
            "{{\"__metadata__\":{{\"device\":\"{device}\",\"sequence\":\"{sequence}\"}},"
        )
        .and_then(|()| tensors(&mut header))
        .and_then(|()| header.write_str("}"))
        .and_then(|()| (0..header.padding()).try_for_each(|_| header.write_str(" ")));
        let length = header.length;
        written.map_err(|fmt::Error| ShardError::Header { lent })?;
        (self.send)(&(length as u64).to_le_bytes());
        (self.send)(&self.header[..length]);
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }
}

/// The weight as an I64 if it is a count of rows of at least 1.
#[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
fn whole(weight: f64) -> Option<i64> {
    let rows = weight as i64;
    (rows >= 1 && weight < 9_007_199_254_740_992.0 && (rows as f64).to_bits() == weight.to_bits())
        .then_some(rows)
}

/// Text that is written into lent memory.
struct Text<'a> {
    bytes: &'a mut [u8],
    length: usize,
}

impl Text<'_> {
    /// How many blanks bring the text to a multiple of eight bytes.
    const fn padding(&self) -> usize {
        self.length.next_multiple_of(8) - self.length
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let to = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        to.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
